"""What the model of photographs makes of words that it read more or less often: by held-out photographs.

    python -m tai_benchmarks.known_words_table --data DATA --work WORK [--list FILE]

DATA is that of `tai_benchmarks.photo_clip.build`; WORK holds the features of the 1,000 photographs of Flickr8k that no
stage of the model has seen, as `tai_benchmarks.photo_tuning_choice` leaves them, or gets them. Of every word of their
captions the table has how well "a photo of a WORD." finds the photographs whose captions hold it: the mean area under
the receiver operating characteristic (0.5 is chance), coarse scores with the mean photograph taken off, by the number
of training photographs whose captions hold the word; apart for words that a name holds which the tower was taught.
Words of two letters, and those of more than 200 photographs, are left out. FILE gets the words that count as known.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.build import Build
from tai_benchmarks.photo_clip.retrieval import split
from tai_benchmarks.photo_clip.taught_words import known_words, write_known_words
from tai_benchmarks.photo_clip.text_training import TextTraining
from tai_benchmarks.photo_tuning import MODEL
from tai_benchmarks.photo_tuning_choice import held_out_photographs
from tai_engine.encoders import load_encoder
from tai_engine.encoders.known_words import words_of_name
from tai_engine.vocabulary import load_vocabulary

STEPS = (0, 1, 4, 8, 16, 64)
"""Rows of the table begin at these numbers of photographs."""
_LEAST_LETTERS, _MOST_PHOTOGRAPHS = 3, 200


def photographs_of_words(captions: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """By word the numbers of the photographs whose captions hold it, rising; words that say little left out."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, of_one in enumerate(captions):
        for word in sorted({word for text in of_one for word in words_of_name(text)}):
            found[word].append(number)
    return {
        word: numbers
        for word, numbers in found.items()
        if len(word) >= _LEAST_LETTERS and len(numbers) <= _MOST_PHOTOGRAPHS
    }


def area(scores_N: Tensor, positives: Sequence[int]) -> float:
    """Under the receiver operating characteristic: the share of pairs of a positive and another one in right order."""
    ranks_N = scores_N.argsort().argsort()
    count, others = len(positives), len(scores_N) - len(positives)
    below = int(ranks_N[list(positives)].sum()) - count * (count - 1) // 2
    return below / (count * others)


def lines(areas: Mapping[str, float], counts: Mapping[str, int], in_names: frozenset[str]) -> Iterator[str]:
    """Of Markdown.

    Args:
        areas: by word.
        counts: training photographs by word.
        in_names: words that a taught name holds.
    """
    yield "| training photographs | words of no name | area | words of names | area |"
    yield "|---|---|---|---|---|"
    for first, following in zip(STEPS, (*STEPS[1:], None), strict=True):
        cells = []
        for named in (False, True):
            found = torch.tensor(
                [
                    value
                    for word, value in areas.items()
                    if (word in in_names) == named
                    and counts.get(word, 0) >= first
                    and (following is None or counts.get(word, 0) < following)
                ]
            )
            error = float(found.std()) / len(found) ** 0.5 if len(found) > 1 else float("nan")
            cells += [f"{len(found):,}", f"{float(found.mean()):.2f} ± {error:.2f}"]
        last = "" if following is None else f" to {following - 1}"
        shown = f"{first}" if following == first + 1 else f"{first}{last or ' and more'}"
        yield "| " + " | ".join([shown, *cells]) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.known_words_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs, captions and names")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed")
    parser.add_argument("--list", type=Path, help="file for the words that are known")
    options = parser.parse_args(arguments)
    build = Build(options.data, options.work, TextTraining())
    encoder = load_encoder(MODEL, "", device="cpu", precision="fp32")
    judge = held_out_photographs(options.data, options.work, encoder, load_vocabulary("coco80"))
    coarse_ND = judge.features.coarse - judge.features.coarse.mean(dim=0)
    held_out = split(len(build.photographs.names))[1].tolist()
    shown = photographs_of_words([build.photographs.captions[number] for number in held_out])
    texts_WD = encoder.encode_class_texts([f"a photo of a {word}." for word in shown])
    scores_WN = normalize(texts_WD, dim=1) @ coarse_ND.T
    areas = {word: area(scores, shown[word]) for word, scores in zip(shown, scores_WN, strict=True)}
    in_names = frozenset(word for name in build.target_names for word in words_of_name(name))
    for line in lines(areas, build.word_counts, in_names):
        print(line, flush=True)
    if options.list is not None:
        write_known_words(known_words(build.target_names, build.word_counts), options.list)


if __name__ == "__main__":
    main()
