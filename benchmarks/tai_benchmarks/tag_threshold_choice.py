"""How the threshold of tags by the model of photographs was chosen: by held-out photographs and what captions name.

    python -m tai_benchmarks.tag_threshold_choice --data DATA --work WORK [--vocabularies everyday coco80 lvis1203]

DATA and WORK are those of `tai_benchmarks.photo_tuning_choice`: of 1,000 photographs of Flickr8k that no stage of the
model has seen, every class of a vocabulary that two of the five captions or more name counts as shown. Captions leave
out most of what is seen, so precision is a lower bound, and thresholds are to be compared by it, not judged. Prints
Markdown: tags are zero-shot ones whose merged scores, standardised per picture, are above each threshold.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tai_benchmarks.photo_clip.bank_features import photograph_names
from tai_benchmarks.photo_clip.captions import read_captions
from tai_benchmarks.photo_clip.retrieval import split
from tai_benchmarks.photo_tuning import MODEL
from tai_benchmarks.photo_tuning_choice import held_out_photographs, shown_classes
from tai_engine.encoders import load_encoder
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.vocabulary import load_vocabulary

THRESHOLDS = (2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0)


class TagFigures(NamedTuple):
    """What a threshold does.

    Attributes:
        tags: a picture, on average.
        bare: share of the pictures that get no tag.
        precision: share of the tags that are shown.
        recall: share of what is shown that is tagged.
    """

    tags: float
    bare: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, 0 where both are."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def figures(scores_NC: NDArray[np.float32], labels_NC: NDArray[np.int8], threshold: float) -> TagFigures:
    """Over all pairs of a picture and a class.

    Args:
        scores_NC: [N, C].
        labels_NC: [N, C] +1 where the picture shows the class.
        threshold: tags are scores above it.
    """
    is_tagged, is_shown = scores_NC > threshold, labels_NC == 1
    right, tagged, shown = (int(found.sum()) for found in (is_tagged & is_shown, is_tagged, is_shown))
    bare = float((~is_tagged.any(axis=1)).mean())
    return TagFigures(tagged / len(scores_NC), bare, right / max(tagged, 1), right / max(shown, 1))


def threshold_table(name: str, scores_NC: NDArray[np.float32], labels_NC: NDArray[np.int8]) -> Iterator[str]:
    """Lines of Markdown, the best F1 in bold."""
    found = {threshold: figures(scores_NC, labels_NC, threshold) for threshold in THRESHOLDS}
    best = max(found, key=lambda threshold: found[threshold].f1)
    for threshold, one in found.items():
        f1 = f"**{100 * one.f1:.1f}**" if threshold == best else f"{100 * one.f1:.1f}"
        shares = [f"{100 * share:.0f}" for share in (one.bare, one.precision, one.recall)]
        yield "| " + " | ".join([name, f"{threshold:g}", f"{one.tags:.1f}", *shares, f1]) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.tag_threshold_choice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs and captions")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed")
    parser.add_argument("--vocabularies", nargs="+", default=["everyday", "coco80", "lvis1203"], help="words")
    options = parser.parse_args(arguments)
    encoder = load_encoder(MODEL, "", device="cpu", precision="fp32")
    photographs = read_captions(options.data / "captions.txt", photograph_names(options.data / "photographs"))
    chosen = split(len(photographs.names))[1].tolist()
    print("| words | threshold | tags a photograph | without a tag, % | precision, % | recall, % | F1, % |")
    print("|---|---|---|---|---|---|---|")
    for name in options.vocabularies:
        vocabulary = load_vocabulary(name)
        judge = held_out_photographs(options.data, options.work, encoder, vocabulary)
        judge = replace(judge, labels=shown_classes(photographs, chosen, vocabulary, least=1))
        scores = judge.scores(zero_shot_prompts(encoder, vocabulary), "standard")["merged"]
        for line in threshold_table(name, scores, judge.labels):
            print(line, flush=True)


if __name__ == "__main__":
    main()
