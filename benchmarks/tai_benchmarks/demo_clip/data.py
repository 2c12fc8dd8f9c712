"""Training batches: scenes drawn afresh for every step, with the classes of each location and a sentence for each.

Legend of shapes: N scenes, H, W pixels, L grid locations, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tai_benchmarks.demo_clip.augment import StyleAugmentation, degrade
from tai_benchmarks.demo_clip.cut_tokens import CutTokenizer, CutVocabulary
from tai_engine.demo.scenes import Scene, SceneGenerator
from tai_engine.demo.sentences import SentenceWriter
from tai_engine.demo.sprites import SpriteSheet, embedded_sprite_sheet, read_sprite_sheet
from tai_engine.errors import UserError
from tai_engine.vocabulary import imagenet_templates, load_vocabulary

EMOJI_STYLES = ("noto", "noto-v1", "twemoji", "fxemoji", "emojione", "streamline-emojis")
_GRID_STRIDE = 32
IGNORED = -1.0


def read_training_sheets(folder: Path) -> list[SpriteSheet]:
    """Read every sheet of the folder; refuse the test style by its name and by its pixels.

    Raises ``UserError`` where there is no sheet, or where one is of the test style's family or holds a sprite of it.
    """
    indices = sorted(folder.glob("*.json"))
    if not indices:
        raise UserError(f"{folder} holds no sprite sheets; write them with tai_benchmarks.demo_clip.prepare_sprites.")
    forbidden = {sprite.digest() for sprite in embedded_sprite_sheet().sprites}
    sheets = []
    for index in indices:
        sheet = read_sprite_sheet(index)
        told = f"{index.stem} {sheet.style} {sheet.source}".lower()
        if "fluent" in told or any(sprite.digest() in forbidden for sprite in sheet.sprites):
            raise UserError(
                f"{index} holds the test style, which training must never see (its accuracy would mean nothing); "
                "remove the sheet."
            )
        sheets.append(sheet)
    return sheets


@dataclass(frozen=True)
class Stage:
    """What the scenes of one part of a run look like; later parts are harder.

    Attributes:
        until: the part of the run's time at which the stage ends.
        image_size: pixels of each side.
        changed: share of the drawings whose style is changed.
        rotation, shear, size_range: as the scene generator has them.
        line_weight: how often a set that is no emoji set is chosen, against 1 for an emoji set.
        mix_styles: whether feature statistics are mixed between the scenes of a batch.
    """

    until: float
    image_size: int
    changed: float
    rotation: float
    shear: float
    size_range: tuple[float, float]
    line_weight: float
    mix_styles: bool


@dataclass(frozen=True)
class Batch:
    """One step's material.

    Attributes:
        images: [N, H, W, 3] uint8; H = W = 0 in batches that are sentences only.
        present: [N, C] float32, 1 where the scene shows the class.
        locations: [N, L, C] float32, 1 where the location shows the class, 0 where not, ``IGNORED`` where hardly.
        captions: [N, T] int64 cut token indices, padded with 0.
        caption_classes: [N, T] int64, the class whose name the token completes, -1 for other tokens.
        prompts: [C, T] int64 cut token indices of one prompt per class.
    """

    images: Tensor
    present: Tensor
    locations: Tensor
    captions: Tensor
    caption_classes: Tensor
    prompts: Tensor


class SceneBatches(IterableDataset[Batch]):
    """An endless series of batches; classes and sentences of batch ``i`` depend on seed, sheets and ``i`` alone.

    How a drawing is changed may also depend on the batches drawn before, since changed drawings are shown again.

    Args:
        sheets: training styles.
        vocabulary: the cut token ids.
        batch_size: scenes per batch.
        stage: what the scenes look like.
        seed: of the series.
        sentences_only: leave the pictures out; classes are drawn as if there were some.
        first: number of the first batch, for resuming.
        stride: step from one batch number to the next, where several processes share the series.
    """

    def __init__(
        self,
        sheets: Sequence[SpriteSheet],
        vocabulary: CutVocabulary,
        *,
        batch_size: int,
        stage: Stage,
        seed: int,
        sentences_only: bool = False,
        first: int = 0,
        stride: int = 1,
    ) -> None:
        self.generator = SceneGenerator(
            sheets,
            image_size=stage.image_size,
            seed=seed,
            size_range=stage.size_range,
            rotation=stage.rotation,
            shear=stage.shear,
            effect=StyleAugmentation(stage.changed),
            style_weights=[1.0 if sheet.style in EMOJI_STYLES else stage.line_weight for sheet in sheets],
        )
        self.batch_size, self.image_size, self.seed = batch_size, stage.image_size, seed
        self.sentences_only = sentences_only
        self.first, self.stride = first, stride
        self.class_names = load_vocabulary("coco80").names
        self.index = {name: number for number, name in enumerate(self.class_names)}
        self.tokenizer = CutTokenizer(vocabulary)
        self.writer = SentenceWriter()
        self.templates = imagenet_templates()
        named = {
            index for words in self.writer.words.values() for word in words for index in self.tokenizer.words(word)
        }
        self.fillers = np.array(sorted(set(range(len(vocabulary.ids) - 2)) - named))

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches ``first``, ``first + 1``, ...; with several workers each draws its share, in order."""
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.first + start * self.stride
        while True:
            yield self.batch(number)
            number += step * self.stride

    def batch(self, number: int) -> Batch:
        """Draw batch ``number``."""
        rng = np.random.default_rng([self.seed, number, 7])
        side = 0 if self.sentences_only else self.image_size // _GRID_STRIDE
        pixels = side * _GRID_STRIDE
        images = np.empty((self.batch_size, pixels, pixels, 3), dtype=np.uint8)
        present_NC = np.zeros((self.batch_size, len(self.class_names)), dtype=np.float32)
        location_NLC = np.zeros((self.batch_size, side * side, len(self.class_names)), dtype=np.float32)
        captions, caption_classes = [], []
        for item in range(self.batch_size):
            if self.sentences_only:
                count = int(rng.integers(1, 5))
                drawn = self.generator.class_names
                names = tuple(sorted({drawn[place] for place in rng.integers(len(drawn), size=count)}))
            else:
                scene = self.generator.scene(number * self.batch_size + item)
                names = scene.class_names
                images[item] = np.asarray(degrade(rng, scene.image))
                self._mark_locations(location_NLC[item], scene, side)
            present_NC[item, [self.index[name] for name in names]] = 1.0
            tokens, classes = self._caption(rng, names)
            captions.append(tokens)
            caption_classes.append(classes)
        caption_NT = self.tokenizer.pad(captions)
        caption_class_NT = torch.full_like(caption_NT, -1)
        for row, classes in zip(caption_class_NT, caption_classes, strict=True):
            kept = classes[: caption_NT.shape[1] - 2]
            row[1 : 1 + len(kept)] = torch.tensor(kept, dtype=torch.int64)
        fillers_before = 16 if rng.random() < 0.25 else int(rng.integers(0, 8))  # as many words as tuned contexts have
        prompts = [self._prompt(rng, name, fillers_before) for name in self.class_names]
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(present_NC),
            torch.from_numpy(location_NLC),
            caption_NT,
            caption_class_NT,
            self.tokenizer.pad(prompts),
        )

    def _mark_locations(self, location_LC: np.ndarray, scene: Scene, side: int) -> None:
        """Mark where each class shows: clearly (1), hardly (``IGNORED``) or not (0)."""
        for place, thing in enumerate(scene.objects, start=1):
            shown = (scene.owner == place).reshape(side, _GRID_STRIDE, side, _GRID_STRIDE).sum(axis=(1, 3)).reshape(-1)
            of_cell = shown / _GRID_STRIDE**2
            of_thing = shown / max(1, int(shown.sum()))
            target = np.where((of_cell > 0.2) | (of_thing > 0.3), 1.0, np.where(of_cell > 0.03, IGNORED, 0.0))
            cell_L = location_LC[:, self.index[thing.class_name]]
            cell_L[:] = np.where(cell_L == 1.0, 1.0, np.where(target == 0.0, cell_L, target))

    def _caption(self, rng: np.random.Generator, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Tokens and, for each, the class whose name it completes (-1 for none)."""
        tokens: list[int] = []
        classes: list[int] = []
        for piece in self.writer.pieces(rng, names):
            words = self.tokenizer.words(piece.text)
            tokens += words
            classes += [-1] * len(words)
            if piece.class_name is not None:
                classes[-1] = self.index[piece.class_name]
        for place in np.flatnonzero(rng.random(len(tokens)) < 0.04):
            if classes[place] < 0 and rng.random() < 0.5:
                tokens[place] = 0  # an unknown word now and then
        return tokens, classes

    def _prompt(self, rng: np.random.Generator, class_name: str, fillers_before: int) -> list[int]:
        """A prompt for the class: the plain one, an ImageNet template, or the name after random words."""
        name = class_name if rng.random() < 0.6 else self.writer.noun(rng, class_name)
        chance = rng.random()
        if chance < 0.35:
            return [*self.tokenizer.words("a photo of a"), *self.tokenizer.words(name), *self.tokenizer.words(".")]
        if chance < 0.7:
            before, after = self.templates[int(rng.integers(len(self.templates)))].split("{}")[:2]
            return [token for part in (before, name, after) for token in self.tokenizer.words(part)]
        fillers = self.fillers[rng.integers(len(self.fillers), size=fillers_before)]
        return [*map(int, fillers), *self.tokenizer.words(name), *self.tokenizer.words(".")]


def batch_loader(batches: SceneBatches, workers: int) -> DataLoader[Batch]:
    """A loader that draws ahead in ``workers`` processes (0: in this one)."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
