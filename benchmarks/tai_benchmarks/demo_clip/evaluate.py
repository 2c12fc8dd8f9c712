"""Measure the demonstration CLIP on drawn scenes: zero-shot mean average precision in known and unseen styles.

    python -m tai_benchmarks.demo_clip.evaluate [--model FOLDER] [--sprites FOLDER] [--scenes 2000]

The unseen style's sprites ship with the engine; the training styles' sheets are given with ``--sprites``. Scores are
those of "a photo of a {}." with the 80 names of COCO: *coarse* as plain CLIP has it, *coarse, no position* as TaI-DPT
runs the attention pool, *fine* over the locations, weighted with softmax(logit scale x cosine), and *merged*, the mean
of fine and plain coarse. The mean is over the classes that the sprites draw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor

from tai_benchmarks.demo_clip.contrastive import pooled_cosine
from tai_benchmarks.demo_clip.data import EMOJI_STYLES
from tai_benchmarks.demo_clip.model import IMAGE_SIZE, encode_images, encode_sentences
from tai_benchmarks.demo_clip.preprocess import normalised
from tai_engine.demo import MODEL_FOLDER
from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import SpriteSheet, embedded_sprite_sheet, read_sprite_sheet
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.vocabulary import load_vocabulary

EVALUATION_SEED = 20_000
"""Seed of the evaluation scenes; training uses small seeds."""


@dataclass(frozen=True)
class StyleResult:
    """Mean average precision, in percent, of one set of scenes under each kind of score."""

    style: str
    scenes: int
    classes: int
    scores: dict[str, float]
    weakest: tuple[tuple[str, float], ...]


def load_model(folder: Path) -> tuple[CLIP, open_clip.SimpleTokenizer]:
    """The model of an open_clip folder, for inference in single precision, and its tokenizer."""
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32")
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{folder}")


def evaluate_style(
    model: CLIP, text_CD: Tensor, sheets: Sequence[SpriteSheet], style: str, *, scenes: int, batch_size: int = 100
) -> StyleResult:
    """Draw ``scenes`` scenes and score them in batches (memory: one batch of pictures and all scores)."""
    names = load_vocabulary("coco80").names
    generator = SceneGenerator(sheets, image_size=IMAGE_SIZE, seed=EVALUATION_SEED)
    tau = model.logit_scale.detach().exp().item()
    truth_NC = np.zeros((scenes, len(names)), dtype=bool)
    collected: dict[str, list[Tensor]] = {"coarse": [], "coarse, no position": [], "fine": [], "merged": []}
    for start, images, present in _batches(generator, scenes, batch_size):
        for row, classes in enumerate(present, start=start):
            truth_NC[row, [names.index(name) for name in classes]] = True
        with torch.inference_mode():
            features = encode_images(model, normalised(torch.from_numpy(images)))
            coarse = features.with_position @ text_CD.T
            fine = pooled_cosine(features.local, text_CD, tau)
            collected["coarse"].append(coarse)
            collected["coarse, no position"].append(features.without_position @ text_CD.T)
            collected["fine"].append(fine)
            collected["merged"].append(0.5 * (coarse + fine))
    precisions = {
        kind: mean_average_precision(torch.cat(parts).numpy(), truth_NC, names) for kind, parts in collected.items()
    }
    weakest = sorted((value, name) for name, value, _ in precisions["coarse"].per_class)[:8]
    return StyleResult(
        style,
        scenes,
        len(precisions["coarse"].per_class),
        {kind: 100 * result.mean for kind, result in precisions.items()},
        tuple((name, 100 * value) for value, name in weakest),
    )


def _batches(
    generator: SceneGenerator, scenes: int, batch_size: int
) -> Iterator[tuple[int, np.ndarray, list[tuple[str, ...]]]]:
    for start in range(0, scenes, batch_size):
        drawn = list(generator.scenes(min(batch_size, scenes - start), start))
        yield start, np.stack([np.asarray(scene.image) for scene in drawn]), [scene.class_names for scene in drawn]


def prompt_features(model: CLIP, tokenizer: open_clip.SimpleTokenizer, template: str = "a photo of a {}.") -> Tensor:
    """The normalised text features [80, D] of the template filled with COCO's names."""
    tokens = tokenizer([template.format(name) for name in load_vocabulary("coco80").names])
    with torch.inference_mode():
        return encode_sentences(model, tokens).coarse


def main(arguments: list[str] | None = None) -> None:
    """Evaluate and print a Markdown table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.demo_clip.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, help="open_clip folder (default: the embedded model)")
    parser.add_argument("--sprites", type=Path, help="folder of training sheets, for the known styles")
    parser.add_argument("--scenes", type=int, default=2000, help="scenes per row (default 2000)")
    parser.add_argument("--each", action="store_true", help="also measure every training style by itself")
    parser.add_argument("--known-only", action="store_true", help="leave the unseen style out (for model selection)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    model, tokenizer = load_model(options.model or MODEL_FOLDER)
    text_CD = prompt_features(model, tokenizer)
    rows: list[tuple[str, list[SpriteSheet]]] = []
    if options.sprites is not None:
        sheets = [read_sprite_sheet(index) for index in sorted(options.sprites.glob("*.json"))]
        emoji = [sheet for sheet in sheets if sheet.style in EMOJI_STYLES]
        rows.append(("known styles", emoji))
        rows += [(sheet.style, [sheet]) for sheet in emoji] if options.each else []
    if not options.known_only:
        unseen = embedded_sprite_sheet()
        rows.append((f"unseen style ({unseen.style})", [unseen]))
    results = [evaluate_style(model, text_CD, sheets, style, scenes=options.scenes) for style, sheets in rows]
    if options.json:
        print(json.dumps([vars(result) for result in results]))
        return
    kinds = list(results[0].scores) if results else []
    print("| scenes | classes | " + " | ".join(kinds) + " |")
    print("|---|---|" + "---|" * len(kinds))
    for result in results:
        numbers = " | ".join(f"{result.scores[kind]:.1f}" for kind in kinds)
        print(f"| {result.scenes} in {result.style} | {result.classes} | {numbers} |")
    for result in results:
        print(f"weakest in {result.style}: " + ", ".join(f"{name} {value:.0f}" for name, value in result.weakest))


if __name__ == "__main__":
    main()
