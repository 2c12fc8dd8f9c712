"""Train the demonstration CLIP on drawn scenes, on a CPU, for a given time.

    python -m tai_benchmarks.demo_clip.train --sprites sprites --out run --minutes 70 [--resume]

The learning rate follows the clock: warm-up, then a cosine that ends when the minutes are over. Scenes are small in the
first part of the run (cheaper), of full size in the rest. ``run/checkpoint.pt`` is written every few minutes and at the
end; ``run/clip`` holds the averaged weights as an open_clip folder.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import distributed, multiprocessing

from tai_benchmarks.demo_clip.contrastive import LossWeights, ScoreBiases, training_loss
from tai_benchmarks.demo_clip.cut_tokens import CutVocabulary, cut_vocabulary
from tai_benchmarks.demo_clip.data import Batch, SceneBatches, Stage, batch_loader, read_training_sheets
from tai_benchmarks.demo_clip.export import export_model
from tai_benchmarks.demo_clip.model import IMAGE_SIZE, build_model, encode_images, encode_sentences
from tai_benchmarks.demo_clip.preprocess import normalised
from tai_engine.demo.sprites import SpriteSheet
from tai_engine.errors import UserError
from tai_engine.files import atomic_path


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of one run; a resumed run takes those of its checkpoint, the minutes excepted."""

    minutes: float
    batch_size: int = 40
    captions: int = 16
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.03
    warm_up_steps: int = 150
    average_decay: float = 0.998
    sentence_steps: int = 250
    seed: int = 1


STAGES = (
    Stage(0.30, 96, changed=0.15, rotation=15, shear=0.0, size_range=(0.36, 0.6), line_weight=0.05, mix_styles=False),
    Stage(0.65, 96, changed=0.5, rotation=22, shear=0.1, size_range=(0.3, 0.6), line_weight=0.1, mix_styles=True),
    Stage(
        1.00, IMAGE_SIZE, changed=0.6, rotation=25, shear=0.12, size_range=(0.28, 0.6), line_weight=0.1, mix_styles=True
    ),
)
"""Easy and small scenes first: from hard ones a new model learns nothing for long."""


class Trainer:
    """Model, optimiser, averaged weights and counters of one run.

    Memory: the model four times over (weights, averages, two moments) and one batch.
    """

    def __init__(
        self,
        sheets: list[SpriteSheet],
        vocabulary: CutVocabulary,
        options: TrainingOptions,
        *,
        replica: int = 0,
        replicas: int = 1,
    ) -> None:
        torch.manual_seed(options.seed)
        self.replica, self.replicas = replica, replicas
        self.sheets, self.vocabulary, self.options = sheets, vocabulary, options
        self.model: CLIP = build_model(len(vocabulary.ids))
        self.model.visual.to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.model.token_embedding.weight[0].zero_()
            self.model.visual.attnpool.positional_embedding.mul_(0.1)
            self.model.logit_scale.fill_(math.log(15.0))
        self.biases = ScoreBiases()
        self.style_generator = torch.Generator().manual_seed(options.seed + replica)
        named = [*self.model.named_parameters(), *self.biases.named_parameters()]
        decayed = [value for name, value in named if value.ndim > 1 and "embedding" not in name]
        others = [value for name, value in named if value.ndim <= 1 or "embedding" in name]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), eps=1e-6)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        self.batches_drawn = 0
        self.seconds = 0.0
        self._last_end: float | None = None

    @property
    def progress(self) -> float:
        """The used part of the time, 0 to 1."""
        return min(1.0, self.seconds / (60 * self.options.minutes))

    @property
    def stage(self) -> Stage:
        """What the scenes of the present part of the run look like."""
        return next(stage for stage in STAGES if self.progress < stage.until or stage is STAGES[-1])

    @property
    def sentences_only(self) -> bool:
        """Whether the run is at its first steps, which bring the class names apart before pictures need them."""
        return self.step < self.options.sentence_steps

    def learning_rate(self) -> float:
        """The rate for the next step."""
        warm = min(1.0, (self.step + 1) / self.options.warm_up_steps)
        return self.options.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Take one optimisation step; return the parts of the loss."""
        self.model.train()
        begun = time.monotonic()
        image = None
        if not self.sentences_only:
            mixing = self.style_generator if self.stage.mix_styles else None
            image = encode_images(self.model, normalised(batch.images), mixing)
        captions = len(batch.captions) if image is None else min(self.options.captions, len(batch.captions))
        caption = encode_sentences(self.model, batch.captions[:captions])
        prompt = encode_sentences(self.model, batch.prompts)
        loss, parts = training_loss(
            self.model,
            self.biases,
            image,
            caption,
            prompt.coarse,
            batch.present,
            batch.locations,
            batch.captions[:captions],
            batch.caption_classes[:captions],
            LossWeights(),
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        table = self.model.token_embedding.weight
        if table.grad is not None:
            table.grad[0].zero_()
        self.seconds += self._share_gradients(time.monotonic() - (self._last_end or begun))
        self._last_end = time.monotonic()
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(math.log(8.0), math.log(40.0))
            self._update_average()
        self.step += 1
        self.batches_drawn += self.replicas
        return {"loss": float(loss.detach()), **parts}

    def _share_gradients(self, seconds: float) -> float:
        """Replace the gradients by their means over all replicas, which so stay equal; return the mean of the times."""
        if self.replicas == 1:
            return seconds
        parameters = [*self.model.parameters(), *self.biases.parameters()]
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), torch.tensor([seconds])])
        distributed.all_reduce(flat)
        flat /= self.replicas
        parts = flat[:-1].split([value.numel() for value in parameters])
        for value, part in zip(parameters, parts, strict=True):
            value.grad = part.view_as(value)
        return float(flat[-1])

    def _update_average(self) -> None:
        decay = min(self.options.average_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "biases": self.biases.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "style_generator": self.style_generator.get_state(),
            "vocabulary": list(self.vocabulary.ids),
            "options": asdict(self.options),
            "step": self.step,
            "batches_drawn": self.batches_drawn,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        if list(state["vocabulary"]) != list(self.vocabulary.ids):
            raise UserError("The checkpoint was trained with other words than the present ones; start a new run.")
        self.model.load_state_dict(state["model"])
        self.biases.load_state_dict(state["biases"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = {name: value.clone() for name, value in state["average"].items()}
        self.style_generator.set_state(state["style_generator"])
        self.step, self.batches_drawn = int(state["step"]), int(state["batches_drawn"])
        self.seconds = float(state["seconds"])

    def batches(self) -> SceneBatches:
        """The series of batches from the present one on, in the present scene size."""
        return SceneBatches(
            self.sheets,
            self.vocabulary,
            batch_size=self.options.batch_size,
            stage=self.stage,
            seed=self.options.seed,
            sentences_only=self.sentences_only,
            first=self.batches_drawn + self.replica,
            stride=self.replicas,
        )


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the trainer's state; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(trainer.state(), temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code of it."""
    if not path.exists():
        raise UserError(f"There is no checkpoint {path} to resume; leave --resume out to start a new run.")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def run(trainer: Trainer, out: Path, *, workers: int, save_every: float) -> None:
    """Train until the minutes are over, printing the losses, and saving every ``save_every`` minutes."""
    out.mkdir(parents=True, exist_ok=True)
    first = trainer.replica == 0
    saved = time.monotonic()
    while trainer.progress < 1.0:
        part = (trainer.stage, trainer.sentences_only)
        sums: dict[str, float] = {}
        counted, begun = 0, time.monotonic()
        for batch in batch_loader(trainer.batches(), workers):
            parts = trainer.train_step(batch)
            now = time.monotonic()
            counted += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
            if counted == 50 and first:
                record = {name: round(value / counted, 4) for name, value in sums.items()}
                rate = counted * trainer.options.batch_size * trainer.replicas / (now - begun)
                record |= {
                    "step": trainer.step,
                    "minutes": round(trainer.seconds / 60, 2),
                    "scenes_per_s": round(rate, 1),
                }
                record |= {
                    "size": part[0].image_size,
                    "scale": round(float(trainer.model.logit_scale.detach().exp()), 2),
                }
                print(json.dumps(record), flush=True)
                sums, counted, begun = {}, 0, now
            if now - saved > 60 * save_every and first:
                save_checkpoint(trainer, out / "checkpoint.pt")
                export_model(trainer.average, trainer.vocabulary, out / "clip")
                saved = now
            if trainer.progress >= 1.0 or (trainer.stage, trainer.sentences_only) != part:
                break
    if first:
        save_checkpoint(trainer, out / "checkpoint.pt")
        export_model(trainer.average, trainer.vocabulary, out / "clip")


def _replica(replica: int, options: argparse.Namespace) -> None:
    """Train as one of several processes."""
    torch.set_num_threads(options.threads)
    if options.replicas > 1:
        meeting = f"file://{(options.out / 'replicas').absolute()}"
        distributed.init_process_group("gloo", init_method=meeting, rank=replica, world_size=options.replicas)
    sheets = read_training_sheets(options.sprites)
    settings = TrainingOptions(minutes=options.minutes)
    checkpoint = load_checkpoint(options.out / "checkpoint.pt") if options.resume else None
    if checkpoint is not None:
        settings = TrainingOptions(**{**checkpoint["options"], "minutes": options.minutes})
    trainer = Trainer(sheets, cut_vocabulary(), settings, replica=replica, replicas=options.replicas)
    if checkpoint is not None:
        trainer.load_state(checkpoint)
    run(trainer, options.out, workers=options.workers, save_every=options.save_every)


def main(arguments: list[str] | None = None) -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.demo_clip.train", description=__doc__)
    parser.add_argument("--sprites", type=Path, required=True, help="folder of sprite sheets (prepare_sprites)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and model")
    parser.add_argument("--minutes", type=float, required=True, help="training time in all, resumed parts included")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--replicas", type=int, default=2, help="training processes that share each step (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training process (default 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes, per replica (default 1)")
    parser.add_argument("--save-every", type=float, default=4.0, help="minutes between checkpoints (default 4)")
    options = parser.parse_args(arguments)
    read_training_sheets(options.sprites)  # a mistake is told once, before any process starts
    if options.resume:
        load_checkpoint(options.out / "checkpoint.pt")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "replicas").unlink(missing_ok=True)
    if options.replicas == 1:
        _replica(0, options)
    else:
        multiprocessing.start_processes(_replica, args=(options,), nprocs=options.replicas, start_method="fork")


if __name__ == "__main__":
    main()
