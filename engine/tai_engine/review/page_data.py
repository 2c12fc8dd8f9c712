"""What the page reads, the same from a server and from a folder: facts, columns of numbers, rows in chunks, decisions.

Shape legend: N pictures, M suggestions, C tags.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tai_engine.json_documents import parse_json
from tai_engine.review.collection import Collection
from tai_engine.review.decisions import Act, Decisions, PictureDecision

CHUNK = 200
"""Pictures in a chunk of rows."""

STATIC = Path(__file__).parent / "static"
STYLE, ICON, PAGE = "style.css", "icon.svg", "page.html"

_WEAK = 1
_DIGITS = 4


def facts(collection: Collection, title: str) -> dict[str, Any]:
    """What the page has to know first."""
    suggestions = collection.suggestions
    return {
        "title": title,
        "pictures": len(collection),
        "tagged": collection.tagged,
        "missing": collection.missing,
        "suggestions": len(suggestions.classes),
        "chunk": CHUNK,
        "tags": list(suggestions.tags),
        "value": "probability" if suggestions.has_probabilities else "score",
        "version": suggestions.sha256[:16],
        "favourites": _frequent(collection),
        "provenance": _provenance(suggestions.provenance),
    }


def columns(collection: Collection) -> bytes:
    """The suggestions of all pictures in the order of looking, little-endian, one column after the other.

    ``offsets`` [N + 1] uint32, ``classes`` [M] uint32, ``values`` [M] fp32 (probability or score, see `facts`),
    ``doubts`` [M] fp32, ``flags`` [M] uint8 (1: below its threshold). Memory: 17 bytes a suggestion, twice.
    """
    suggestions = collection.suggestions
    order, counts = _gather(collection, 0, len(collection))
    values = suggestions.probabilities if suggestions.has_probabilities else suggestions.scores
    parts = (
        np.concatenate([[0], np.cumsum(counts)]).astype("<u4"),
        suggestions.classes[order].astype("<u4"),
        values[order].astype("<f4"),
        suggestions.doubts()[order].astype("<f4"),
        suggestions.is_weak[order].astype(np.uint8) * _WEAK,
    )
    return b"".join(part.tobytes() for part in parts)


def rows(collection: Collection, chunk: int) -> dict[str, Any]:
    """Ids and exact numbers of the pictures ``chunk * CHUNK`` and following.

    Raises:
        IndexError: for a chunk that is not there.
    """
    start, stop = chunk * CHUNK, min(len(collection), (chunk + 1) * CHUNK)
    if not 0 <= start < stop:
        raise IndexError(chunk)
    suggestions = collection.suggestions
    order, counts = _gather(collection, start, stop)
    ends = np.cumsum(counts).tolist()
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    scores, thresholds = (_rounded(column[order]) for column in (suggestions.scores, suggestions.thresholds))
    return {
        "ids": collection.ids[start:stop].to_pylist(),
        "scores": [scores[a:b] for a, b in places],
        "thresholds": [thresholds[a:b] for a, b in places],
    }


def chunk_count(collection: Collection) -> int:
    """How many chunks of rows there are."""
    return -(-len(collection) // CHUNK)


def decisions_snapshot(collection: Collection, decisions: Decisions) -> dict[str, Any]:
    """All decisions on the collection's pictures."""
    return decisions_of(collection, decisions, list(decisions))


def decisions_of(collection: Collection, decisions: Decisions, ids: Sequence[str]) -> dict[str, Any]:
    """What holds of some pictures now, by number, and the state of the whole."""
    numbers = collection.find(ids)
    return {
        "revision": decisions.revision,
        "pictures": {
            str(number): _picture(decisions.of(item_id))
            for item_id, number in zip(ids, numbers, strict=True)
            if number is not None
        },
        "favourites": decisions.favourites,
        "undo": _act(decisions.next_undo),
        "redo": _act(decisions.next_redo),
    }


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, which is JavaScript too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _picture(decision: PictureDecision) -> dict[str, Any] | None:
    if not decision:
        return None
    return {"verdicts": dict(decision.verdicts), "none": decision.is_none, "by": decision.by, "at": decision.at}


def _act(act: Act | None) -> dict[str, Any] | None:
    return None if act is None else {"revision": act.revision, "summary": act.summary}


def _gather(collection: Collection, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the suggestions of pictures ``start`` to ``stop`` stand, and how many each picture has."""
    offsets, picture_rows = collection.suggestions.offsets, collection.rows(start, stop)
    has_any = picture_rows >= 0
    counts = np.zeros(len(picture_rows), np.int64)
    counts[has_any] = np.diff(offsets)[picture_rows[has_any]]
    starts = np.zeros(len(picture_rows), np.int64)
    starts[has_any] = offsets[picture_rows[has_any]]
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts), counts


def _rounded(numbers: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, _DIGITS) for value in numbers.tolist()]


def _frequent(collection: Collection) -> list[str]:
    """The nine tags that most often reach their threshold, for the keys 1 to 9 until somebody chooses others."""
    suggestions = collection.suggestions
    counts = np.bincount(suggestions.classes[~suggestions.is_weak], minlength=len(suggestions.tags))
    best: Iterable[int] = np.argsort(-counts, kind="stable")[:9].tolist()
    return [suggestions.tags[index] for index in best]


def _provenance(provenance: dict[str, str]) -> dict[str, str]:
    """What people want to see of where tags come from."""
    wanted: tuple[str, ...] = ("created", "space_key", "prompts_method", "items")
    shown = {key: provenance[key] for key in wanted if key in provenance}
    with contextlib.suppress(KeyError, ValueError, TypeError):
        shown["model"] = str(parse_json(provenance["encoder"])["model"])
    return shown
