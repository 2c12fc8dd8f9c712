"""The journal of a review: JSON Lines that are only ever appended to, each synced to the disk before it is answered.

The first line names what is decided on::

    {"journal": "tai-engine review", "version": 1, "tags_file": "tags.parquet", "tags_sha256": "…", "created": "…"}

Every other line is an entry, numbered by ``revision`` from 1, with who (``by``) and when (``at``, ISO 8601 in UTC)::

    {"revision": 1, …, "act": "decide", "changes": [{"ids": ["a.jpg"], "accept": ["dog"], "reject": ["cat"]}]}
    {"revision": 2, …, "act": "undo", "of": 1}             and "redo"
    {"revision": 3, …, "act": "favourites", "tags": ["dog"]}
    {"revision": 4, …, "act": "tags", "tags_sha256": "…"}  from here on another file of tags is decided on

An act is one line, however many pictures it concerns, and so is undone as one. Only the last line can be cut short by a
crash, for the next one is written after it is on the disk; it was never answered, so it is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tai_engine.errors import ItemError, UserError
from tai_engine.files import sync_directory, write_error
from tai_engine.json_documents import parse_json
from tai_engine.regular_files import open_regular
from tai_engine.review.decisions import Act, Change, Decisions, parse_favourites

KIND = "tai-engine review"
VERSION = 1
_HEADER_START = f'{{"journal": "{KIND}", '.encode()


def default_journal(tags: Path) -> Path:
    """Where the decisions on a file of tags go unless somebody says otherwise: beside it."""
    return tags.with_name(tags.name + ".decisions.jsonl")


class ConflictError(Exception):
    """Somebody else has changed what was to be undone or done again."""


@dataclass(frozen=True)
class JournalContent:
    """What stands in a journal.

    Attributes:
        decisions: what its entries add up to.
        length: bytes of the whole lines.
        cut_bytes: bytes behind them, of a line that a crash cut short.
    """

    decisions: Decisions
    length: int
    cut_bytes: int


def read_journal(path: str | Path) -> JournalContent:
    """Read a journal without changing it. Memory: its longest line, and what `Decisions` says.

    Raises:
        UserError: if it is missing, none of ours, of a newer version, or damaged before its last line.
    """
    try:
        file = open_regular(path)
    except ItemError as error:
        raise UserError(f"The journal '{path}' cannot be read ({error.detail}): check the path.") from error
    decisions, length, cut_bytes = Decisions(), 0, 0
    head = b""
    with file:
        for number, line in enumerate(file, 1):
            try:
                if cut_bytes:
                    raise ValueError("there is more behind it")
                entry = _parse_line(line)
            except ValueError as error:
                if cut_bytes:
                    raise _damaged(path, number - 1, error) from error
                cut_bytes = len(line)
                head = head or line
                continue
            try:
                if number == 1:
                    decisions.tags_sha256 = _check_header(path, entry)
                else:
                    decisions.apply(entry)
            except UserError:
                raise
            except ValueError as error:
                raise _damaged(path, number, error) from error
            length += len(line)
            head = line
    if not length and cut_bytes and not _HEADER_START.startswith(head[: len(_HEADER_START)]):
        raise _no_journal(path)
    return JournalContent(decisions, length, cut_bytes)


def read_decisions(path: str | Path) -> Decisions:
    """What a journal adds up to, for those who only read it; see `read_journal`."""
    return read_journal(path).decisions


def _parse_line(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("its end is missing")
    entry = parse_json(line)  # text that is not UTF-8 is a ValueError too
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    return entry


def _check_header(path: str | Path, header: dict[str, Any]) -> str:
    if header.get("journal") != KIND or not isinstance(header.get("tags_sha256"), str):
        raise _no_journal(path)
    if header.get("version") != VERSION:
        raise UserError(f"The journal '{path}' was made by a newer tai-engine: upgrade tai-engine to go on with it.")
    return str(header["tags_sha256"])


def _no_journal(path: str | Path) -> UserError:
    return UserError(f"'{path}' is no journal of a review: name another file.")


def _damaged(path: str | Path, line: int, error: Exception) -> UserError:
    return UserError(f"The journal '{path}' is damaged in line {line} ({error}): take a copy that is whole.")


class Journal:
    """A journal that is open for decisions; one process holds it at a time, until it is closed. Safe with threads.

    Memory: what `Decisions` says.

    Attributes:
        path: the file.
        decisions: what it adds up to now.
        cut_bytes: of a line that a crash had cut short, and that was taken away when it was opened.
    """

    def __init__(
        self, path: str | Path, *, tags_file: str, tags_sha256: str, by: str, carry_over: bool = False
    ) -> None:
        """Open the journal at ``path``, or begin it.

        Args:
            path: the file.
            tags_file: name of the file of tags, for people.
            tags_sha256: its digest.
            by: who decides.
            carry_over: whether decisions on another file of tags hold for this one.

        Raises:
            UserError: as `read_journal`; if it belongs to another file of tags and ``carry_over`` is not set; if
                another process holds it; or if the file system refuses.
        """
        self.path = Path(path)
        self._by = by
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            self._hold()
            content = read_journal(self.path)
            self.decisions, self._length, self.cut_bytes = content.decisions, content.length, content.cut_bytes
            if self.decisions.tags_sha256 not in ("", tags_sha256) and not carry_over:
                raise UserError(
                    f"The journal '{self.path}' has decisions on other tags than those in '{tags_file}': name another "
                    "one with --journal, or say --carry-over if the pictures are the same and were only tagged anew."
                )
            with self._refusals_as_user_errors():
                if self.cut_bytes:
                    os.ftruncate(self._descriptor, self._length)
                if not self._length:
                    header = {"journal": KIND, "version": VERSION, "tags_file": tags_file, "tags_sha256": tags_sha256}
                    self._write({**header, "created": _now()})
                    self.decisions.tags_sha256 = tags_sha256
                    sync_directory(self.path.parent)
            if self.decisions.tags_sha256 != tags_sha256:
                self._append("tags", tags_file=tags_file, tags_sha256=tags_sha256)
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def decide(self, changes: Sequence[Change]) -> list[str]:
        """Enter one act and sync it; ids of the pictures that it concerns.

        Raises:
            UserError: if the file system refuses; the journal is then as before.
        """
        with self._lock:
            return self._append("decide", changes=[change.to_json() for change in changes])

    def undo(self, revision: int) -> list[str]:
        """Take back the last act, which is ``revision``; ids of its pictures.

        Raises:
            ConflictError: if it is not the last one (any more).
            UserError: as `decide`.
        """
        with self._lock:
            _require(self.decisions.next_undo, revision)
            return self._append("undo", of=revision)

    def redo(self, revision: int) -> list[str]:
        """Do again the act that was undone last, which is ``revision``; ids of its pictures.

        Raises:
            ConflictError: if it is not the last one (any more).
            UserError: as `decide`.
        """
        with self._lock:
            _require(self.decisions.next_redo, revision)
            return self._append("redo", of=revision)

    def set_favourites(self, tags: Sequence[str]) -> None:
        """Enter which tags the keys 1 to 9 stand for.

        Raises:
            UserError: as `decide`.
            ValueError: for more than nine, or what is no tag.
        """
        with self._lock:
            self._append("favourites", tags=list(parse_favourites(tags)))

    def _append(self, act: str, **content: Any) -> list[str]:
        entry = {"revision": self.decisions.revision + 1, "at": _now(), "by": self._by, "act": act, **content}
        with self._refusals_as_user_errors():
            self._write(entry)
        return self.decisions.apply(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
            raise
        self._length += len(line)

    def _hold(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"Another `tai review` holds the journal '{self.path}': use its page (two tabs agree), or end it first."
            ) from error

    @contextlib.contextmanager
    def _refusals_as_user_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self.path, error) from error


def _require(act: Act | None, revision: int) -> None:
    if act is None or act.revision != revision:
        raise ConflictError


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
