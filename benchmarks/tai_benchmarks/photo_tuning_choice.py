"""How the settings that prompts for the model of photographs are tuned with were chosen: by held-out photographs.

    python -m tai_benchmarks.photo_tuning_choice --data DATA --work WORK [--run "noise=2" ...]

DATA is that of `tai_benchmarks.photo_clip.build`: photographs of Flickr8k and their captions. The 1,000 photographs
that no stage of the model has seen are encoded into WORK once; one shows a class of COCO's 80 if two of its five
captions or more name it, and a class counts if five photographs or more show it. Prompts are tuned on the built-in
captions, of other photographs, and judged by mean average precision over these classes, merged scores, standardised
per picture as zero-shot ones are. Each run is also judged with several shares of the vectors that it started from.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.bank_features import photograph_names
from tai_benchmarks.photo_clip.captions import CaptionedPhotographs, read_captions
from tai_benchmarks.photo_clip.retrieval import split
from tai_benchmarks.photo_tuning import MODEL, LabelledFeatures, PhotoTuning, labelled_captions, recipe
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sentences.nouns import NounFilter
from tai_engine.tagging.scoring import SCORES
from tai_engine.tuning import NegativeConfig
from tai_engine.vocabulary import Vocabulary, load_vocabulary

SHARES = (0.0, 0.3, 0.5, 0.7)
CAPTIONS, PHOTOGRAPHS = 2, 5
"""Captions that have to name a class for a photograph to show it, and photographs that have to show it to count."""
_SLICE = 50
_MINING = "negatives."


def held_out_photographs(data: Path, work: Path, encoder: Encoder, vocabulary: Vocabulary) -> LabelledFeatures:
    """The photographs that no stage has seen, and what their captions name; their features stay in ``work``.

    Memory: the features of 1,000 photographs.

    Raises:
        UserError: for missing photographs or captions.
    """
    names = photograph_names(data / "photographs")
    photographs = read_captions(data / "captions.txt", names)
    chosen = split(len(names))[1].tolist()
    place = work / "held-out.pt"
    if not place.exists():
        work.mkdir(parents=True, exist_ok=True)
        parts = []
        for first in range(0, len(chosen), _SLICE):
            shown = [names[number] for number in chosen[first : first + _SLICE]]
            images = [Image.open(data / "photographs" / name).convert("RGB") for name in shown]
            parts.append(encoder.encode_images(images, shown))
            print(f"{first + len(shown)} of {len(chosen)} photographs encoded", flush=True)
        batch = FeatureBatch.concatenate(parts)
        torch.save({"coarse": batch.coarse, "fine": batch.fine.half(), "offsets": batch.offsets}, place)
    tensors = torch.load(place, weights_only=True)
    features = FeatureBatch(
        tuple(names[number] for number in chosen),
        normalize(tensors["coarse"], dim=1),
        normalize(tensors["fine"].float(), dim=1),
        tensors["offsets"],
        encoder.space_key,
    )
    return LabelledFeatures(features, shown_classes(photographs, chosen, vocabulary))


def shown_classes(
    photographs: CaptionedPhotographs, chosen: Sequence[int], vocabulary: Vocabulary
) -> np.ndarray[Any, np.dtype[np.int8]]:
    """[N, C] +1 where enough captions name a class, -1 elsewhere and for classes that too few photographs show."""
    nouns = NounFilter(vocabulary)
    counts = np.zeros((len(chosen), len(vocabulary)), dtype=np.int64)
    for row, number in enumerate(chosen):
        for caption in photographs.captions[number]:
            counts[row, list(nouns.classes_in(caption))] += 1
    is_shown = counts >= CAPTIONS
    is_shown &= is_shown.sum(axis=0) >= PHOTOGRAPHS
    return np.where(is_shown, 1, -1).astype(np.int8)


def with_start(tuned: PromptSet, start: PromptSet, share: float) -> PromptSet:
    """What `TuningConfig.start_share` makes of prompts that were tuned without, from zero-shot ones."""
    pairs = ((start.global_vectors, tuned.global_vectors), (start.local_vectors, tuned.local_vectors))
    both = [normalize(share * first + (1 - share) * last, dim=1) for first, last in pairs]
    return replace(tuned, global_vectors=both[0], local_vectors=both[1])


def parse_changes(text: str) -> dict[str, Any]:
    """Settings of `TuningConfig` and, after ``negatives.``, of `NegativeConfig`: ``noise=2 negatives.margin=0.3``.

    Raises:
        UserError: for what is no list of settings.
    """
    changes = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no setting: write NAME=VALUE, such as noise=2.")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    return changes


def choice_table(
    judge: LabelledFeatures, runs: PhotoTuning, start: PromptSet, changes: Sequence[str], seed: int
) -> Iterator[str]:
    """Lines of Markdown, as they are found: zero-shot, then each run with each share of its start."""
    yield "| settings | share of the start | coarse | fine | merged | merged, not standardised |"
    yield "|---|---|---|---|---|---|"
    yield _choice_line(judge, start, "zero-shot", 1.0)
    for text in changes:
        given = parse_changes(text)
        mining = {name.removeprefix(_MINING): value for name, value in given.items() if name.startswith(_MINING)}
        others = {name: value for name, value in given.items() if not name.startswith(_MINING)}
        strategy = mining.pop("strategy", "none")
        config = replace(runs.config, start_share=0.0, negatives=NegativeConfig(strategy="none", **mining), **others)
        tuned = replace(runs, config=config).prompts(strategy, seed)
        for share in SHARES:
            yield _choice_line(judge, with_start(tuned, start, share), text or "as they are", share)


def _choice_line(judge: LabelledFeatures, prompts: PromptSet, what: str, share: float) -> str:
    scores, plain = judge.scores(prompts, "standard"), judge.scores(prompts, "none")
    figures = [judge.precision(scores, which) for which in SCORES] + [judge.precision(plain, "merged")]
    return "| " + " | ".join([what, f"{share:g}", *(f"{figure:.1f}" for figure in figures)]) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.photo_tuning_choice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs and captions")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed")
    parser.add_argument("--run", nargs="+", default=[""], help="what to change of the settings beside the model")
    parser.add_argument("--seed", type=int, default=1, help="of tuning")
    options = parser.parse_args(arguments)
    encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
    judge = held_out_photographs(options.data, options.work, encoder, vocabulary)
    store = labelled_captions(options.work, encoder, vocabulary)
    runs = PhotoTuning(encoder, vocabulary, store, recipe())
    start = zero_shot_prompts(encoder, vocabulary)
    for line in choice_table(judge, runs, start, options.run, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
