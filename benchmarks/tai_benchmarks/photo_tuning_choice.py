"""How the settings that prompts for the model of photographs are tuned with were chosen: by held-out photographs.

    python -m tai_benchmarks.photo_tuning_choice --data DATA --work WORK [--run "noise=2" ...]

DATA is that of `tai_benchmarks.photo_clip.build`: photographs of Flickr8k and their captions. The 1,000 photographs
that no stage of the model has seen are encoded into WORK once; one shows a class of COCO's 80 if two of its five
captions or more name it, and a class counts if five photographs or more show it. Prompts are tuned on the built-in
captions, of other photographs, and judged by mean average precision over these classes, merged scores, standardised
per picture as zero-shot ones are. Each run is also judged with several shares of the vectors that it started from.
What a run changes is settings of `TuningConfig`, then, after "negatives", a strategy and settings of `NegativeConfig`:
``"noise=2 negatives hard margin=0.3"``.
Prints Markdown.
"""

from __future__ import annotations

import argparse
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
from tai_benchmarks.photo_tuning import MODEL, LabelledFeatures, PhotoTuning, labelled_captions, parse_changes, recipe
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sentences.nouns import NounFilter
from tai_engine.tagging.scoring import SCORES
from tai_engine.vocabulary import Vocabulary, load_vocabulary

SHARES = (0.0, 0.3, 0.5, 0.7)
CAPTIONS, PHOTOGRAPHS = 2, 5
"""Captions that have to name a class for a photograph to show it, and photographs that have to show it to count."""
_SLICE = 50
_NEGATIVES = "negatives "


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
    photographs: CaptionedPhotographs, chosen: Sequence[int], vocabulary: Vocabulary, least: int = PHOTOGRAPHS
) -> np.ndarray[Any, np.dtype[np.int8]]:
    """[N, C] +1 where enough captions name a class, -1 elsewhere and for classes that fewer than ``least`` show."""
    nouns = NounFilter(vocabulary)
    counts = np.zeros((len(chosen), len(vocabulary)), dtype=np.int64)
    for row, number in enumerate(chosen):
        for caption in photographs.captions[number]:
            counts[row, list(nouns.classes_in(caption))] += 1
    is_shown = counts >= CAPTIONS
    is_shown &= is_shown.sum(axis=0) >= least
    return np.where(is_shown, 1, -1).astype(np.int8)


def with_start(tuned: PromptSet, start: PromptSet, share: float) -> PromptSet:
    """What `TuningConfig.start_share` makes of prompts that were tuned without, from zero-shot ones."""
    pairs = ((start.global_vectors, tuned.global_vectors), (start.local_vectors, tuned.local_vectors))
    both = [normalize(share * first + (1 - share) * last, dim=1) for first, last in pairs]
    return replace(tuned, global_vectors=both[0], local_vectors=both[1])


def choice_table(
    judge: LabelledFeatures, runs: PhotoTuning, start: PromptSet, changes: Sequence[str], seeds: Sequence[int]
) -> Iterator[str]:
    """Lines of Markdown, as they are found: zero-shot, then each run with each share of its start."""
    yield "| settings | share of the start | coarse | fine | merged | merged, not standardised |"
    yield "|---|---|---|---|---|---|"
    yield _choice_line(judge, [start], "zero-shot", 1.0)
    for text in changes:
        settings, _, negatives = text.partition(_NEGATIVES)
        config = replace(runs.config, start_share=0.0, **parse_changes(settings))
        tuned = [replace(runs, config=config).prompts(negatives or "none", seed) for seed in seeds]
        for share in SHARES:
            mixed = [with_start(prompts, start, share) for prompts in tuned]
            yield _choice_line(judge, mixed, text.strip() or "as they are", share)


def _choice_line(judge: LabelledFeatures, prompts: Sequence[PromptSet], what: str, share: float) -> str:
    """Of one run or of several, whose figures are averaged."""
    rows = []
    for of_one in prompts:
        scores, plain = judge.scores(of_one, "standard"), judge.scores(of_one, "none")
        rows.append([judge.precision(scores, which) for which in SCORES] + [judge.precision(plain, "merged")])
    figures = np.mean(rows, axis=0)
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of tuning; figures are averaged")
    options = parser.parse_args(arguments)
    encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
    judge = held_out_photographs(options.data, options.work, encoder, vocabulary)
    store = labelled_captions(options.work, encoder, vocabulary)
    runs = PhotoTuning(encoder, vocabulary, store, recipe())
    start = zero_shot_prompts(encoder, vocabulary)
    for line in choice_table(judge, runs, start, options.run, options.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
