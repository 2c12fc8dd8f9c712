"""Teaches the text tower where names and captions belong; the image tower and its projection stay as they are.

Shape legend: N photographs, L locations, B items of a batch, T tokens, D joint size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.text_batches import CaptionBatch, NameBatch, TextBatches
from tai_benchmarks.photo_clip.text_tower import (
    MOST_SHIFT,
    KeptVocabulary,
    bag_of_words,
    ends,
    pick,
    text_parameters,
    token_rows,
)
from tai_engine.files import atomic_path

_POOLING = 30.0  # temperature over locations in the loss
_FIRST_SCALE, _MOST_SCALE = 20.0, 100.0
_WARM_UP = 50  # steps of either part


@dataclass(frozen=True)
class TextTraining:
    """How long and how fast.

    Attributes:
        bag_steps: as a bag of words.
        steps: of the whole tower.
        names: of a batch.
        captions: of a batch.
        pooled: of these so many are also contrasted by soft-pooled locations.
        bag_rate: learning rate of AdamW as a bag of words, falling by a cosine.
        rate: of the whole tower, likewise.
        weight_decay: of matrices other than the tokens' table.
        seed: of weights and batches.
    """

    bag_steps: int = 1400
    steps: int = 300
    names: int = 192
    captions: int = 128
    pooled: int = 48
    bag_rate: float = 1.5e-3
    rate: float = 7e-4
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class TextLossWeights:
    """Weights of the four losses."""

    names: float = 3.0
    contrast: float = 0.3
    nouns: float = 1.0
    pooled_contrast: float = 0.1


@dataclass(frozen=True, eq=False)
class PhotographVectors:
    """Training photographs in the joint space, unit rows.

    Attributes:
        coarse: [N, D] fp32.
        fine: [N, L, D] fp16.
    """

    coarse: Tensor
    fine: Tensor


def contrast(scores_BB: Tensor) -> Tensor:
    """InfoNCE both ways: the mean cross-entropy of rows and of columns, the diagonal being right."""
    right = torch.arange(len(scores_BB))
    return (F.cross_entropy(scores_BB, right) + F.cross_entropy(scores_BB.T, right)) / 2


def soft_pooled(text_BD: Tensor, fine_BLD: Tensor, temperature: float) -> Tensor:
    """[B texts, B photographs]: ``Σ_l softmax_l(τ s) s`` with s the cosine of a text and a location."""
    cosines = torch.einsum("td,pld->tpl", text_BD, fine_BLD)
    return (torch.softmax(temperature * cosines, dim=2) * cosines).sum(dim=2)


class TextTrainer:
    """Model, optimiser and batches of one run.

    Memory: the tower four times over, the vectors of all photographs, and the soft-pooled cosines of a batch.
    """

    def __init__(self, model: Any, batches: TextBatches, photographs: PhotographVectors, options: TextTraining) -> None:
        self.model, self.batches, self.photographs, self.options = model, batches, photographs, options
        self.vocabulary = KeptVocabulary(batches.trained_ids)
        self.vocabulary.cut(model)
        parameters = text_parameters(model)
        for name, value in model.named_parameters():
            value.requires_grad_(name in parameters or name == "logit_scale")
        table = "token_embedding.weight"
        decayed = [value for name, value in parameters.items() if value.ndim > 1 and name != table]
        others = [value for name, value in parameters.items() if value.ndim <= 1 or name == table]
        groups = [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": [*others, model.logit_scale], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=options.bag_rate, betas=(0.9, 0.98))
        self.step = 0
        with torch.no_grad():
            model.logit_scale.fill_(math.log(_FIRST_SCALE))

    def train(self, checkpoint: Path, remark: Callable[[str], None], save_every: int = 200) -> None:
        """Go on to the last step, saving now and then."""
        total, begun = self.options.bag_steps + self.options.steps, time.monotonic()
        self.model.train()
        while self.step < total:
            parts = self._take_step()
            if self.step % 50 == 0:
                shown = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
                remark(f"text step {self.step} of {total}, {time.monotonic() - begun:.0f} s: {shown}")
            if self.step % save_every == 0 or self.step == total:
                self.save(checkpoint)

    def save(self, path: Path) -> None:
        """Write the state; the file appears whole or not at all."""
        state = {
            "options": asdict(self.options),
            "step": self.step,
            "optimiser": self.optimiser.state_dict(),
            "token_ids": self.vocabulary.ids,
            "model": {**text_parameters(self.model), "logit_scale": self.model.logit_scale},
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Take over a saved state of the same options; the batches begin another series."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["options"] != asdict(self.options):
            return
        self.model.load_state_dict(state["model"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def _take_step(self) -> dict[str, float]:
        options, as_bag = self.options, self.step < self.options.bag_steps
        done, length, rate = self.step, options.bag_steps, options.bag_rate
        if not as_bag:
            done, length, rate = self.step - options.bag_steps, options.steps, options.rate
        falling = 0.01 + 0.495 * (1 + math.cos(math.pi * done / length))
        rate *= min(1.0, (done + 1) / _WARM_UP) * falling
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        names, captions = self.batches.names(options.names), self.batches.captions(options.captions)
        names = names._replace(ids=self.vocabulary.rows(names.ids))
        captions = captions._replace(ids=self.vocabulary.rows(captions.ids))
        # Of short sequences the fused attention's gradient takes thrice the time of plain products.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            losses = self._bag_losses(names, captions) if as_bag else self._losses(names, captions)
        weights = asdict(TextLossWeights())
        loss = sum(weights[name] * value for name, value in losses.items())
        assert isinstance(loss, Tensor)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        table = self.model.token_embedding.weight
        if table.grad is not None:
            table.grad[0].zero_()  # the padding's row stays zero
        torch.nn.utils.clip_grad_norm_([p for group in self.optimiser.param_groups for p in group["params"]], 5.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(_MOST_SCALE))
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()} | {
            "scale": float(self.model.logit_scale.detach().exp())
        }

    def _bag_losses(self, names: NameBatch, captions: CaptionBatch) -> dict[str, Tensor]:
        named = normalize(bag_of_words(self.model, names.ids).float(), dim=1)
        told = normalize(bag_of_words(self.model, captions.ids).float(), dim=1)
        scores = self.model.logit_scale.exp() * told @ self.photographs.coarse[captions.photographs].T
        return {"names": 1 - (named * names.targets).sum(dim=1).mean(), "contrast": contrast(scores)}

    def _losses(self, names: NameBatch, captions: CaptionBatch) -> dict[str, Tensor]:
        shift = int(torch.randint(0, MOST_SHIFT + 1, ())) * int(torch.rand(()) < 0.5)
        named = pick(token_rows(self.model, names.ids, shift), ends(names.ids)).float()
        rows = token_rows(self.model, captions.ids, shift)
        told = normalize(pick(rows, ends(captions.ids)).float(), dim=1)
        nouns = normalize(rows[captions.noun_rows, captions.noun_places].float(), dim=1)
        scale, shown = self.model.logit_scale.exp(), captions.photographs
        few = self.options.pooled
        pooled = soft_pooled(told[:few], self.photographs.fine[shown[:few]].float(), _POOLING)
        return {
            "names": 1 - (normalize(named, dim=1) * names.targets).sum(dim=1).mean(),
            "contrast": contrast(scale * told @ self.photographs.coarse[shown].T),
            "nouns": 1 - (nouns * captions.noun_targets).sum(dim=1).mean(),
            "pooled_contrast": contrast(scale * pooled),
        }
