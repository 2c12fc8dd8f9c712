"""Where names belong in the joint space: what the text tower is taught.

Shape legend: N photographs, M rows of the bank, C concepts of captions, J synsets of ImageNet, D joint size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.algebra import ridge
from tai_benchmarks.photo_clip.clip_vectors import plain_name
from tai_benchmarks.photo_clip.noun_labels import CaptionLabels, ImageNetSynsets

_RIDGE = 0.3
_MAP_RIDGE = 1.0
# Shares of the three kinds of evidence, chosen by nouns of held-out captions.
_SHARE_IMAGENET_WITH_CAPTIONS = 0.5
_SHARE_MAPPED = 0.7
_PHOTOGRAPHS_FOR_HALF_TRUST = 10.0


@dataclass(frozen=True, eq=False)
class OwnTargets:
    """Directions that photographs themselves give.

    Attributes:
        captions: [C, D] unit rows.
        counts: [C] the sum of shares, in photographs.
        imagenet: [J, D] unit rows.
    """

    captions: Tensor
    counts: Tensor
    imagenet: Tensor


def own_targets(
    unit_ND: Tensor, labels: CaptionLabels, bank_MD: Tensor, probabilities_MK: Tensor, synsets: ImageNetSynsets
) -> OwnTargets:
    """Ridge regressions from unit vectors to the square roots of shares and of probabilities.

    Args:
        unit_ND: of the training photographs.
        labels: of the same photographs.
        bank_MD: unit vectors of the bank.
        probabilities_MK: of the 1,000 classes for its rows.
        synsets: of ImageNet.
    """
    captions = ridge(unit_ND, labels.shares.sqrt(), _RIDGE).T
    imagenet = ridge(bank_MD, (probabilities_MK @ synsets.members).sqrt(), _RIDGE).T
    return OwnTargets(normalize(captions, dim=1), labels.shares.sum(dim=0), normalize(imagenet, dim=1))


def targets_by_name(
    own: OwnTargets, labels: CaptionLabels, synsets: ImageNetSynsets, clip_vectors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """[D] unit target of every name that captions, ImageNet or CLIP know.

    Own evidence of captions counts the more the more photographs there are; CLIP's vectors come in through a linear map
    that is fitted on the names that have both.
    """
    found = combine_own(own, labels, synsets)
    mapped = map_vectors(clip_vectors, found)
    both = {name: found[name] + _SHARE_MAPPED * mapped[name] for name in found.keys() & mapped.keys()}
    return {name: normalize(vector, dim=0) for name, vector in sorted({**mapped, **found, **both}.items())}


def target_names(labels: CaptionLabels, synsets: ImageNetSynsets, others: Iterable[str]) -> frozenset[str]:
    """The names that `targets_by_name` has a target of; ``others`` are those that CLIP's vectors are of."""
    of_captions = (lemma for lemmas in labels.names for lemma in lemmas)
    return frozenset((*others, *map(plain_name, synsets.names), *map(plain_name, of_captions)))


def combine_own(own: OwnTargets, labels: CaptionLabels, synsets: ImageNetSynsets) -> dict[str, Tensor]:
    """Targets without CLIP, by plain name: of captions, of ImageNet, or of both; the longer the better founded."""
    imagenet = {plain_name(lemma): own.imagenet[number] for lemma, number in synsets.names.items()}
    captions: dict[str, Tensor] = {}
    # Nouns come last, for what a word means in captions is more than what is a kind of the sense.
    for number in reversed(range(len(labels.names))):
        trust = float(own.counts[number] / (own.counts[number] + _PHOTOGRAPHS_FOR_HALF_TRUST))
        for lemma in labels.names[number]:
            captions[plain_name(lemma)] = trust * own.captions[number]
    for name in captions.keys() & imagenet.keys():
        captions[name] = captions[name] + _SHARE_IMAGENET_WITH_CAPTIONS * imagenet[name]
    return {**imagenet, **captions}


def map_vectors(
    clip_vectors: Mapping[str, Tensor], targets: Mapping[str, Tensor], names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """CLIP's vectors of all names carried into the joint space, [D] unit.

    Args:
        clip_vectors: by name.
        targets: by name.
        names: to fit the map on; default all that both have.
    """
    fit = sorted(clip_vectors.keys() & targets.keys()) if names is None else list(names)
    given = torch.stack([clip_vectors[name] for name in fit])
    wanted = normalize(torch.stack([targets[name] for name in fit]), dim=1)
    mean = given.mean(dim=0)
    gram = (given - mean).T @ (given - mean) + _MAP_RIDGE * torch.eye(given.shape[1])
    coefficients = torch.linalg.solve(gram, (given - mean).T @ (wanted - wanted.mean(dim=0)))
    every = torch.stack(list(clip_vectors.values()))
    return dict(zip(clip_vectors, normalize((every - mean) @ coefficients, dim=1), strict=True))
