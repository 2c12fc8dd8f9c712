"""Zero-shot class vectors, kept from one command to the next: a text tower takes seconds to load, they take none.

An entry is found by all that decides its numbers: the embedding space (architecture, tokenizer, weights), the files
of a model in a folder, device and precision, the names as prompts have them, and the templates. It is safetensors
inside what `DiskCache` keeps whole, and what does not read as such vectors counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load, save

from tai_engine.disk_cache import DiskCache
from tai_engine.prompts import prompt_set
from tai_engine.prompts.prompt_set import PromptSet, TextEncoder, prompts_of_vectors
from tai_engine.vocabulary import Vocabulary

SWITCH = "TAI_KEEP_VECTORS"
"""The environment variable that keeps none if it is 0."""

MOST_BYTES = 256 << 20
_FORMAT = 1


@dataclass(frozen=True)
class TextOrigin:
    """What makes the vectors of a text.

    Attributes:
        space_key: the embedding space.
        files: name, size, time of the last change in ns and inode of each file of a model in a folder; of a folder the
            content is not known but by reading all of it. Empty for models by name.
        device: the kind of it, such as ``"cpu"``.
        precision: as the user said it: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """

    space_key: str
    files: tuple[tuple[str, int, int, int], ...]
    device: str
    precision: str


class ReadingEncoder(TextEncoder, Protocol):
    """What is needed of an encoder to make what is kept."""

    def unread_words(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those names with a word that the text tower has never read."""


class KeptPrompts(NamedTuple):
    """Zero-shot prompts, and those of their names with a word that the text tower has never read."""

    prompts: PromptSet
    unread: tuple[str, ...]


def files_of(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """The files of a model's folder, for `TextOrigin`; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found))


def default_cache() -> DiskCache | None:
    """The user's own, of 256 MB at most; None if the environment says ``TAI_KEEP_VECTORS=0``."""
    if os.environ.get(SWITCH) == "0":
        return None
    return DiskCache(user_cache_path("tai-engine") / "class-vectors", MOST_BYTES)


def kept_zero_shot(
    cache: DiskCache | None,
    origin: TextOrigin,
    open_encoder: Callable[[], ReadingEncoder],
    vocabulary: Vocabulary,
    templates: Sequence[str],
) -> KeptPrompts:
    """As `zero_shot_prompts`, but vectors that were made before are read, and the encoder is not opened for them.

    Memory: as `zero_shot_prompts`, and the vectors twice more while they are kept.

    Raises:
        UserError: as `zero_shot_prompts` and ``open_encoder``.
    """
    key = _key(origin, vocabulary.prompt_names, templates)
    if cache is not None and (data := cache.get(key)) is not None:
        kept = _read(data, key, origin.space_key, vocabulary, templates)
        if kept is not None:
            return kept
    encoder = open_encoder()
    prompts = prompt_set.zero_shot_prompts(encoder, vocabulary, templates)
    made = KeptPrompts(prompts, encoder.unread_words(vocabulary.prompt_names))
    # An entry that takes a good part of the whole cache would push out all others.
    if cache is not None and encoder.space_key == origin.space_key and prompts.global_vectors.nbytes < MOST_BYTES // 4:
        cache.put(key, _written(made, vocabulary.prompt_names, key))
    return made


def _key(origin: TextOrigin, names: Sequence[str], templates: Sequence[str]) -> str:
    content = {
        "format": _FORMAT,
        "tokenizers": metadata.version("open_clip_torch"),
        "names": list(names),
        "templates": list(templates),
        **asdict(origin),
    }
    return json.dumps(content, sort_keys=True)


def _digest(key: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(hashlib.sha256(key.encode()).digest()), dtype=torch.uint8)


def _written(made: KeptPrompts, names: Sequence[str], key: str) -> bytes:
    unread = set(made.unread)
    return save(
        {
            "vectors": made.prompts.global_vectors.contiguous(),
            "logit_scale": torch.tensor([made.prompts.logit_scale], dtype=torch.float64),
            "unread": torch.tensor([name in unread for name in names]),
            "key": _digest(key),
        }
    )


def _read(
    data: bytes, key: str, space_key: str, vocabulary: Vocabulary, templates: Sequence[str]
) -> KeptPrompts | None:
    """The prompts of an entry; None if it is damaged, or another's."""
    try:
        tensors = load(data)
        if not torch.equal(tensors["key"], _digest(key)):
            return None
        scale = float(tensors["logit_scale"])
        prompts = prompts_of_vectors(tensors["vectors"], space_key, scale, vocabulary, templates)
        pairs = zip(vocabulary.prompt_names, tensors["unread"].tolist(), strict=True)
        return KeptPrompts(prompts, tuple(name for name, is_unread in pairs if is_unread))
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError):
        return None
