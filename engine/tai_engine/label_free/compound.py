"""Compound prompts: a class is also looked for in company ("a photo of a dog and a cat").

A picture of several things lies between the texts of each, nearer to a text that names two. The mean of a class's
compound scores ties the best way of fusing them (Miller et al., "SPARC", CVPR 2025, arXiv 2502.16911) and is a score
itself: the mean of cosines is the cosine with the mean vector but for a factor, so that a class stays one vector.

Shape legend: C classes, P compound prompts of a class, D embedding size.
"""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet, TextEncoder
from tai_engine.vocabulary import DEFAULT_TEMPLATE, Vocabulary

PARTNERS = 100
"""Other classes that a class is named with, at most: with fewer than all of some 80, what is gained is lost again."""


def with_compound_prompts(
    prompts: PromptSet, encoder: TextEncoder, vocabulary: Vocabulary, template: str = DEFAULT_TEMPLATE
) -> PromptSet:
    """Zero-shot prompts, half of each class vector now its mean over compound prompts.

    Every class is named before up to `PARTNERS` others, evenly spread over the vocabulary from its own place on: no
    label and no picture chooses. Memory: the class vectors and the prompts of one class.

    Args:
        prompts: of the vocabulary, zero-shot.
        encoder: that they come from.
        vocabulary: whose classes are named together.
        template: with ``{}`` for both names.

    Raises:
        UserError: for fewer than two classes.
    """
    names = vocabulary.prompt_names
    if len(names) < 2:
        raise UserError("Compound prompts name two classes together, but the vocabulary has one: leave --compound out.")
    count = min(PARTNERS, len(names) - 1)
    means = []
    for own, name in enumerate(names):
        partners = [names[(own + 1 + place * (len(names) - 1) // count) % len(names)] for place in range(count)]
        texts = [template.replace("{}", f"{name} and a {other}") for other in partners]
        means.append(normalize(encoder.encode_class_texts(texts), dim=1).mean(dim=0))
    class_vectors = normalize(prompts.global_vectors + normalize(torch.stack(means), dim=1), dim=1)
    metadata = {**prompts.metadata, "compound": json.dumps({"partners": count})}
    return replace(prompts, global_vectors=class_vectors, local_vectors=class_vectors, metadata=metadata)
