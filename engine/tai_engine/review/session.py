"""A review under way: decisions of one collection, entered in a journal, and what has changed since when."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import pyarrow as pa

from tai_engine.review.collection import Collection
from tai_engine.review.decisions import parse_changes, parse_favourites
from tai_engine.review.journal import Journal
from tai_engine.review.page_data import decisions_of, decisions_snapshot

_PICTURES_REMEMBERED = 100_000


class ReviewSession:
    """What browsers ask for and send; safe with threads.

    Memory: what `Collection` and `Journal` say, and for the last acts the ids of up to 100,000 pictures.
    """

    def __init__(self, collection: Collection, journal: Journal, *, free_words: bool = False) -> None:
        """Args: the pictures, where decisions go, and whether tags may be words outside of the vocabulary."""
        self.collection = collection
        self.free_words = free_words
        self._journal = journal
        self._vocabulary = frozenset(collection.suggestions.tags)
        self._changed: deque[tuple[int, list[str]]] = deque()
        self._remembered = 0
        self._lock = threading.Lock()

    def snapshot(self) -> dict[str, Any]:
        """All decisions."""
        with self._lock:
            return {**decisions_snapshot(self.collection, self._journal.decisions), "all": True}

    def since(self, revision: int) -> dict[str, Any]:
        """What has changed after ``revision``; everything (``all`` is then true) if that is not known any more."""
        with self._lock:
            return self._since(revision)

    def _since(self, revision: int) -> dict[str, Any]:
        decisions = self._journal.decisions
        first = self._changed[0][0] if self._changed else decisions.revision + 1
        if not first - 1 <= revision <= decisions.revision:
            return {**decisions_snapshot(self.collection, decisions), "all": True}
        ids = dict.fromkeys(i for number, changed in self._changed if number > revision for i in changed)
        return {**decisions_of(self.collection, decisions, list(ids)), "all": False}

    def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        """Enter ``request["changes"]`` as one act: each as a `Change`, but with ``pictures``, numbers, in place of ids.

        Raises:
            ValueError: for what is no change, a picture that is not in the collection, or a word that is not in the
                vocabulary and not on all of its pictures already, unless free words are allowed.
            UserError: if the journal cannot be written.
        """
        given = request.get("changes")
        if not isinstance(given, list):
            raise ValueError("changes must be a list")
        changes = parse_changes([self._with_ids(change) for change in given])
        with self._lock:
            if not self.free_words:
                for change in changes:
                    self._require_known((*change.accept, *change.add), change.ids)
            return self._answer(self._journal.decide(changes), request)

    def _with_ids(self, change: Any) -> dict[str, Any]:
        if not isinstance(change, dict) or not isinstance(numbers := change.get("pictures"), list):
            raise ValueError("a change must be an object with a list of pictures")
        for number in numbers:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.collection):
                raise ValueError(f"there is no picture {number!r:.40} here")
        ids = self.collection.ids.take(pa.array(numbers, pa.int64())).to_pylist()
        return {key: value for key, value in change.items() if key not in ("pictures", "ids")} | {"ids": ids}

    def undo(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take back the act ``request["of"]``.

        Raises:
            ConflictError: if it is not the last one.
            ValueError, UserError: as `decide`.
        """
        of = _revision(request)
        with self._lock:
            return self._answer(self._journal.undo(of), request)

    def redo(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do again the act ``request["of"]``.

        Raises:
            ConflictError: if it is not the one that was undone last.
            ValueError, UserError: as `decide`.
        """
        of = _revision(request)
        with self._lock:
            return self._answer(self._journal.redo(of), request)

    def choose_favourites(self, request: dict[str, Any]) -> dict[str, Any]:
        """Enter ``request["tags"]`` as those of the keys 1 to 9.

        Raises:
            ValueError, UserError: as `decide`.
        """
        tags = parse_favourites(request.get("tags"))
        with self._lock:
            if not self.free_words:
                self._require_known(tags, ())
            self._journal.set_favourites(tags)
            return self._answer([], request)

    def _answer(self, ids: list[str], request: dict[str, Any]) -> dict[str, Any]:
        """Remember that an act changed these pictures, and say what has changed for whoever asked for it.

        With ``request["since"]``, the last revision that was seen, that is what others have changed meanwhile too.
        """
        revision = self._journal.decisions.revision
        self._changed.append((revision, ids))
        self._remembered += len(ids)
        while self._remembered > _PICTURES_REMEMBERED and len(self._changed) > 1:
            self._remembered -= len(self._changed.popleft()[1])
        since = request.get("since")
        return self._since(since if isinstance(since, int) else revision - 1)

    def _require_known(self, tags: tuple[str, ...], ids: tuple[str, ...]) -> None:
        """A word that pictures have already, from another vocabulary, may stay on them."""
        for tag in tags:
            if tag in self._vocabulary or (ids and all(tag in self._journal.decisions.of(i).verdicts for i in ids)):
                continue
            raise ValueError(f"{tag!r} is not in the vocabulary; `tai review --free-words` allows other words")


def _revision(request: dict[str, Any]) -> int:
    of = request.get("of")
    if not isinstance(of, int) or isinstance(of, bool):
        raise ValueError(f"'of' is {of!r}, expected the revision of an act")
    return of
