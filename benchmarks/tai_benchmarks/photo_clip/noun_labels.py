"""What is taught about photographs: which nouns their captions name, and which of ImageNet's synsets there are.

Shape legend: N photographs, C concepts (nouns and what they are kinds of), K = 1000 ImageNet classes, J synsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from tai_benchmarks.photo_clip.captions import Mention, frequent_nouns
from tai_benchmarks.photo_clip.wordnet import Nouns

LEAST_PHOTOGRAPHS = 8
# Lexicographer files of what can be seen: Tops, acts, animals, artifacts, bodies, food, groups, places, objects,
# persons, plants, substances.
_VISIBLE = frozenset({3, 4, 5, 6, 8, 13, 14, 15, 17, 18, 20, 27})
# What a photograph shows as a thing: animals, artifacts, bodies, food, objects, persons, plants.
CONCRETE = frozenset({5, 6, 8, 13, 17, 18, 20})
_NEAR_LEVELS = 5
_LEAST_DEPTH_CAPTIONS, _LEAST_DEPTH_IMAGENET = 3, 4
_MOST_LEAVES = 450


@dataclass(frozen=True, eq=False)
class CaptionLabels:
    """Soft labels of photographs.

    Attributes:
        names: of each concept its lemmas; a noun has one.
        synsets: of each concept its offset; None for a noun without one.
        n_nouns: the first so many concepts are nouns themselves.
        shares: [N, C] the share of a photograph's captions that name the concept.
    """

    names: tuple[tuple[str, ...], ...]
    synsets: tuple[int | None, ...]
    n_nouns: int
    shares: Tensor


def caption_labels(mentioned: Sequence[Sequence[Sequence[Mention]]], nouns: Nouns) -> CaptionLabels:
    """Label photographs by their captions.

    Concepts are the nouns of at least ``LEAST_PHOTOGRAPHS`` photographs, and every visible near ancestor of two of them
    or more, each noun taken in its most frequent sense.

    Args:
        mentioned: the nouns of every caption of every photograph.
        nouns: of WordNet.
    """
    vocabulary = frequent_nouns(mentioned, LEAST_PHOTOGRAPHS)
    senses = {noun: nouns.first_senses[noun] for noun in vocabulary}
    children: dict[int, set[str]] = defaultdict(set)
    for noun, sense in senses.items():
        for ancestor, steps in nouns.ancestors(sense, _NEAR_LEVELS).items():
            if steps:
                children[ancestor].add(noun)
    kinds = [kind for kind in sorted(children) if len(children[kind]) > 1 and _is_visible_kind(nouns, kind)]
    column_of_kind = {kind: len(vocabulary) + number for number, kind in enumerate(kinds)}
    columns = {}
    for number, (noun, sense) in enumerate(senses.items()):
        near = nouns.ancestors(sense, _NEAR_LEVELS)
        columns[noun] = [
            number,
            *(column_of_kind[kind] for kind, steps in near.items() if steps and kind in column_of_kind),
        ]
    shares = torch.zeros(len(mentioned), len(vocabulary) + len(kinds))
    for row, captions in zip(shares, mentioned, strict=True):
        for caption in captions:
            named = {column for mention in caption for column in columns.get(mention.noun, ())}
            row[sorted(named)] += 1 / len(captions)
    names = [(noun,) for noun in vocabulary] + [nouns.synsets[kind].lemmas for kind in kinds]
    return CaptionLabels(tuple(names), (*senses.values(), *kinds), len(vocabulary), shares)


def _is_visible_kind(nouns: Nouns, offset: int) -> bool:
    return nouns.synsets[offset].topic in _VISIBLE and nouns.depth(offset) >= _LEAST_DEPTH_CAPTIONS


@dataclass(frozen=True, eq=False)
class ImageNetSynsets:
    """ImageNet's classes and what they are kinds of.

    Attributes:
        offsets: J synsets.
        members: [K, J] 1 where a class is of a synset.
        names: the number of the synset by lemma; of several the one whose sense is the more frequent.
    """

    offsets: tuple[int, ...]
    members: Tensor
    names: dict[str, int]


def imagenet_classes() -> tuple[int, ...]:
    """The offsets of the 1,000 classes in the order of the classifier's outputs, as timm lists them."""
    text = files("timm.data").joinpath("_info", "imagenet_synsets.txt").read_text(encoding="utf-8")
    return tuple(int(line.removeprefix("n")) for line in text.split())


def imagenet_synsets(classes: Sequence[int], nouns: Nouns) -> ImageNetSynsets:
    """Every class with its ancestors that are neither as general as "object" nor as wide as half of all classes."""
    leaves: dict[int, list[int]] = defaultdict(list)
    for number, offset in enumerate(classes):
        for ancestor in nouns.ancestors(offset):
            leaves[ancestor].append(number)
    offsets = [
        offset
        for offset, numbers in sorted(leaves.items())
        if len(numbers) <= _MOST_LEAVES and nouns.depth(offset) >= _LEAST_DEPTH_IMAGENET
    ]
    members = torch.zeros(len(classes), len(offsets))
    ranked: dict[str, tuple[int, int]] = {}
    for number, offset in enumerate(offsets):
        members[leaves[offset], number] = 1
        for lemma in nouns.synsets[offset].lemmas:
            senses = nouns.senses[lemma]
            ranked[lemma] = min(ranked.get(lemma, (len(senses), number)), (senses.index(offset), number))
    return ImageNetSynsets(tuple(offsets), members, {lemma: number for lemma, (_, number) in ranked.items()})
