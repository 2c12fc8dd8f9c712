"""A prompt set: two class vectors per class, ready to be scored against features of their space.

Shape legend: C classes, D embedding size, P templates, K contexts per prompt, W width of the text tower.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError, reason_of
from tai_engine.features import wrong_lengths
from tai_engine.files import write_atomically
from tai_engine.json_documents import parse_json
from tai_engine.vocabulary import DEFAULT_TEMPLATE, Vocabulary

FORMAT = "tai-engine prompt set 1"
CONTEXTS = ("global_contexts", "local_contexts")
DUAL_CONTEXTS = ("positive_contexts", "negative_contexts")
NEGATIVE_VECTORS = "negative_vectors"
TENSORS = ("global_vectors", "local_vectors", NEGATIVE_VECTORS, *CONTEXTS, *DUAL_CONTEXTS)
METHODS = ("zero-shot", "tuned")
_MOST_DIMENSIONS = 1 << 16
_MOST_OF_A_PROMPT = 1 << 24
"""Numbers of one class's contexts: a thousand vectors of the widest text tower."""
_SENTENCES_AT_A_TIME = 1024


class TextEncoder(Protocol):
    """What is needed of an encoder to make class vectors."""

    @property
    def space_key(self) -> str:
        """The embedding space."""

    @property
    def logit_scale(self) -> float:
        """The model's factor on cosines."""

    def encode_class_texts(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), D] fp32 unit rows."""


@dataclass(frozen=True)
class ScoringConstants:
    """The constants that tuned prompts are scored with.

    Attributes:
        scale: k, the factor on every cosine, as in tuning.
        image_temperature: tau of the softmax over the rows of a picture.

    Raises:
        ValueError: for anything but numbers above 0.
    """

    scale: float
    image_temperature: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"the {name} is {value!r}, expected a number above 0")


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Class vectors of a vocabulary in one embedding space.

    Scoring needs no text tower. Tuned prompts carry their contexts too, so that other prompts can start from them.

    Attributes:
        class_names: C names.
        global_vectors: [C, D] fp32 unit rows, scored against coarse vectors.
        local_vectors: [C, D] fp32 unit rows, scored against fine vectors.
        space_key: the embedding space; scoring refuses features of another.
        logit_scale: the model's own factor on cosines (100 for OpenAI's CLIP).
        method: ``"zero-shot"`` for hand-written templates, ``"tuned"`` for learned contexts.
        metadata: provenance, plain text. That of tuned prompts has the vocabulary and its fingerprint, the data's
            fingerprint, the seed, the recipe, and the number, position and kind of the contexts.
        contexts: ``global_contexts`` and ``local_contexts`` of tuned prompts (of dual ones ``positive_contexts`` and
            ``negative_contexts``), [K, W] or, where every class has its own, [C, K, W], fp32; empty for others.
        constants: what tuned prompts are scored with; None for others.
        negative_vectors: [C, D] fp32 unit rows of the classes' absence, of dual prompts (`dual_scores`), whose other
            two matrices are those of presence; None for others.

    Raises:
        ValueError: for no classes, a name that is no text or occurs twice, shapes that do not fit, rows that are not of
            unit length, contexts or numbers that are not finite, and metadata that is no text.
    """

    class_names: tuple[str, ...]
    global_vectors: Tensor
    local_vectors: Tensor
    space_key: str
    logit_scale: float
    method: str = "zero-shot"
    metadata: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Tensor] = field(default_factory=dict)
    constants: ScoringConstants | None = None
    negative_vectors: Tensor | None = None

    def __post_init__(self) -> None:
        names, vectors = self.class_names, [self.global_vectors, self.local_vectors]
        if self.negative_vectors is not None:
            vectors.append(self.negative_vectors)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError("class_names are none, or hold something else than text")
        if len(set(names)) < len(names):
            raise ValueError("a class name occurs twice")
        for name, rows in zip(("global_vectors", "local_vectors", NEGATIVE_VECTORS), vectors, strict=False):
            if rows.ndim != 2 or len(rows) != len(names) or rows.dtype != torch.float32 or not rows.shape[1]:
                raise ValueError(f"{name} are {rows.dtype} {tuple(rows.shape)}, expected float32 [{len(names)}, D]")
            if len(wrong_lengths(rows)):
                raise ValueError(f"{name} are not of unit length")
        if len({rows.shape for rows in vectors}) > 1:
            raise ValueError("global_vectors and local_vectors (or negative_vectors) differ in shape")
        if self.negative_vectors is not None and self.constants is None:
            raise ValueError("dual prompts come without the constants that they were tuned to")
        if self.method not in METHODS:
            raise ValueError(f"the method is {self.method!r}, expected one of {METHODS}")
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f"the logit scale is {self.logit_scale}, expected a number above 0")
        if not isinstance(self.metadata, Mapping) or not all(
            isinstance(part, str) for pair in self.metadata.items() for part in pair
        ):
            raise ValueError("the metadata is not a table of texts")
        expected = CONTEXTS if self.negative_vectors is None else DUAL_CONTEXTS
        if self.contexts and set(self.contexts) != set(expected):
            raise ValueError(f"contexts are {sorted(self.contexts)}, expected {expected} or none")
        for name, rows in self.contexts.items():
            shape = tuple(rows.shape)
            own = len(shape) == 3 and shape[0] != len(self.class_names)
            if len(shape) not in (2, 3) or own or 0 in shape or rows.dtype != torch.float32:
                raise ValueError(f"{name} are {rows.dtype} {shape}, expected float32 [K, W] or [C, K, W]")
            if not bool(rows.isfinite().all()):
                raise ValueError(f"{name} hold something that is no number")

    @property
    def dim(self) -> int:
        """D, the size of the joint embedding."""
        return int(self.global_vectors.shape[1])

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the matrices and contexts, and everything else as text in its metadata.

        Raises:
            UserError: if the file cannot be written; an older file of that name then stays as it was.
        """
        header = {
            "format": FORMAT,
            "class_names": json.dumps(self.class_names),
            "space_key": self.space_key,
            "logit_scale": repr(self.logit_scale),
            "method": self.method,
            "metadata": json.dumps(dict(self.metadata), sort_keys=True),
        }
        if self.constants is not None:
            header["constants"] = json.dumps(asdict(self.constants))
        tensors = {"global_vectors": self.global_vectors, "local_vectors": self.local_vectors, **self.contexts}
        if self.negative_vectors is not None:
            tensors[NEGATIVE_VECTORS] = self.negative_vectors
        # Copies, for safetensors refuses tensors that share memory, as the two matrices of zero-shot prompts do.
        write_atomically(path, save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, header))

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Read what `save` wrote.

        Raises:
            UserError: if the file is missing, damaged or no prompt set.
        """
        if not os.path.isfile(path):  # noqa: PTH113 - a path asks the system, which finds some names too long
            raise UserError(
                f"There is no prompt set at '{path}': check the path, or leave --prompts out for zero-shot tags."
            )
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise UserError(f"'{path}' is no prompt set of this engine (expected the format {FORMAT!r}).")
                names = parse_json(header["class_names"])
                if not isinstance(names, list) or not names:
                    raise ValueError("its class names are no list with something in it")
                tensors = {name: _fitting(file, name, len(names)) for name in file.keys() if name in TENSORS}  # noqa: SIM118
                constants = parse_json(header["constants"]) if "constants" in header else None
                return cls(
                    class_names=tuple(names),
                    global_vectors=tensors.pop("global_vectors"),
                    local_vectors=tensors.pop("local_vectors"),
                    negative_vectors=tensors.pop(NEGATIVE_VECTORS, None),
                    space_key=header["space_key"],
                    logit_scale=float(header["logit_scale"]),
                    method=header["method"],
                    metadata=parse_json(header["metadata"]),
                    contexts=tensors,
                    constants=None if constants is None else ScoringConstants(**constants),
                )
        except UserError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The prompt set '{path}' is damaged ({reason_of(error)}): make it anew or take a copy that is whole."
            ) from error


def _fitting(file: Any, name: str, classes: int) -> Tensor:
    """A tensor of a file, of which the shape is looked at before any memory is taken."""
    shape = file.get_slice(name).get_shape()
    most = _MOST_OF_A_PROMPT if name in (*CONTEXTS, *DUAL_CONTEXTS) else _MOST_DIMENSIONS
    if math.prod(shape) > classes * most:
        raise ValueError(f"its {name} are of the shape {shape}, too large for {classes} classes")
    return cast("Tensor", file.get_tensor(name))


def zero_shot_prompts(
    encoder: TextEncoder, vocabulary: Vocabulary, templates: Sequence[str] = (DEFAULT_TEMPLATE,)
) -> PromptSet:
    """Class vectors from hand-written templates, as CLIP does it: per class the normalised mean of the normalised
    templates.

    Both vectors of a class are the same. Memory: the class vectors, and the templates of one class or of as many as
    make 1,024 sentences.

    Raises:
        UserError: for a template without the place ``{}`` for the name.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"The template {template!r} needs the place {{}} for the class name exactly once.")
    if not templates:
        raise UserError("At least one template is needed, such as 'a photo of a {}.'.")
    at_a_time = max(1, _SENTENCES_AT_A_TIME // len(templates))
    parts = []
    for start in range(0, len(vocabulary), at_a_time):
        names = vocabulary.prompt_names[start : start + at_a_time]
        texts = [template.replace("{}", name) for name in names for template in templates]
        vectors_PD = encoder.encode_class_texts(texts)
        parts.append(normalize(vectors_PD.view(len(names), len(templates), -1).mean(dim=1), dim=1))
    return prompts_of_vectors(torch.cat(parts), encoder.space_key, encoder.logit_scale, vocabulary, templates)


def prompts_of_vectors(
    vectors_CD: Tensor, space_key: str, logit_scale: float, vocabulary: Vocabulary, templates: Sequence[str]
) -> PromptSet:
    """The prompt set of class vectors that hand-written templates gave: [C, D] fp32 unit rows.

    Raises:
        ValueError: as `PromptSet`.
    """
    return PromptSet(
        class_names=vocabulary.names,
        global_vectors=vectors_CD,
        local_vectors=vectors_CD,
        space_key=space_key,
        logit_scale=logit_scale,
        metadata={
            "vocabulary": vocabulary.name,
            "vocabulary_fingerprint": vocabulary.fingerprint,
            "templates": json.dumps(list(templates)),
        },
    )
