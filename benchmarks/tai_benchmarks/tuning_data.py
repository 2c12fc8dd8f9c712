"""What tuning is measured on: drawn scenes, encoded once, with their truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tai_benchmarks.demo_clip.data import EMOJI_STYLES
from tai_benchmarks.demo_clip.evaluate import EVALUATION_SEED
from tai_engine.caching.images import cache_images
from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.demo.sprites import SpriteSheet, embedded_sprite_sheet, read_sprite_sheet
from tai_engine.demo.tuned import precisions
from tai_engine.encoders import Encoder
from tai_engine.errors import UserError
from tai_engine.evaluation.truth import Truth, load_truth
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import Which
from tai_engine.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Scenes:
    """Features of drawn scenes and what they show."""

    name: str
    store: FeatureStore
    truth: Truth

    @property
    def classes(self) -> int:
        """Classes that some scene shows."""
        return int((self.truth.labels == 1).any(axis=0).sum())

    def precisions(self, prompts: PromptSet) -> dict[Which, float]:
        """mAP in percent of each kind of score, with the constants that belong to the prompts."""
        return {which: 100 * value for which, value in precisions(self.store, self.truth, prompts).items()}


def encode_scenes(
    folder: Path, name: str, sheets: Sequence[SpriteSheet], count: int, encoder: Encoder, vocabulary: Vocabulary
) -> Scenes:
    """Draw the first ``count`` evaluation scenes into ``folder``, without loss, and encode those that are not yet."""
    draw_pictures(folder / "pictures", count, EVALUATION_SEED, encoder.image_size, sheets=sheets, lossless=True)
    cache_images(open_source(str(folder / "pictures")), encoder, folder / "features.zarr")
    truth = load_truth(folder / "pictures" / TRUTH_NAME, vocabulary.names)
    return Scenes(name, FeatureStore.open(folder / "features.zarr"), truth)


def scene_styles(sprites: Path | None) -> Iterator[tuple[str, list[SpriteSheet]]]:
    """The style that the embedded model never saw; after it the known ones, if the folder of their sheets is given.

    Raises:
        UserError: if it holds none of them.
    """
    yield "scenes in the unseen style", [embedded_sprite_sheet()]
    if sprites is None:
        return
    sheets = [read_sprite_sheet(index) for index in sorted(sprites.glob("*.json"))]
    known = [sheet for sheet in sheets if sheet.style in EMOJI_STYLES]
    if not known:
        raise UserError(
            f"'{sprites}' holds no sheet of the known styles ({', '.join(EMOJI_STYLES)}): write them with "
            "tai_benchmarks.demo_clip.prepare_sprites, or leave --sprites out."
        )
    yield "scenes in known styles", known
