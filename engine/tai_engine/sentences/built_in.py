"""Sentences that come with the engine, for those who have none: 20,213 captions of 4,040 photographs of COCO val2017.

Prompts that were tuned on them may not be judged by these photographs, whose captions they have learned from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tai_engine.sentences.corpus import image_key
from tai_engine.sentences.read import read_sentences

BUILT_IN = "builtin"
"""What the built-in sentences are called, by users and in the records of stores and prompts."""
_CAPTIONS = Path(__file__).parents[1] / "demo" / "photo_clip" / "coco_captions.jsonl.gz"
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?\d{12}(?:\.\w+)?")


def built_in_captions() -> Path:
    """The file of captions, as `read_sentences` takes it; its rows name their photographs by COCO's numbers."""
    return _CAPTIONS


def are_built_in(paths: Iterable[str | Path]) -> bool:
    """Whether the built-in captions are among sentence files; told by the file, of which a copy is another."""
    return _CAPTIONS.resolve() in {Path(path).resolve() for path in paths}


def captioned_pictures(ids: Iterable[str]) -> list[str]:
    """Those ids that are of photographs which the built-in captions describe, in order.

    Numbers are common names of files, so an id has to be spelled as COCO does: ``000000000285.jpg``, in any folder, or
    ``COCO_val2014_000000000285.jpg``. Memory: a short text for each photograph of the captions.
    """
    spelled = [name for name in ids if _COCO_NAME.fullmatch(PurePosixPath(name).name)]
    if not spelled:
        return []
    taught = {image_key(sentence.image_id) for sentence in read_sentences(_CAPTIONS) if sentence.image_id is not None}
    return [name for name in spelled if image_key(name) in taught]
