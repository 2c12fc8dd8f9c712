"""The place beside a file of tags where its parts are made: it has one owner, and holds nothing of anybody else.

``X.parts`` is ours if it holds a ``job.json`` that this program wrote, or nothing but names of our own. Whatever else
lies there is a user's: it is left alone, and the run is refused. Files of ours are removed by their names, never the
folder as a whole.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tai_engine.errors import ItemError, UserError
from tai_engine.files import write_atomically, write_error
from tai_engine.json_documents import read_json
from tai_engine.store.places.lock import find_writer, hold_lock
from tai_engine.store.places.store_files import open_files
from tai_engine.tagging.arrow_columns import text_column
from tai_engine.tagging.tag_job import TagJob, TagPart, part_name

JOB = "job.json"
_FORMAT = "tai-engine tags in the making"
_LOCKS = re.compile(r"\.lock|lease(\.\d+)?\.json")
# Parts, and temporary names of files that a killed process was writing.
_PARTS = re.compile(r"\d{8,}\.parquet|\.[0-9a-f]{16}\.tmp")
_MOST_JOB_BYTES = 2**30  # it names every class
_TRIES, _TRY_SECONDS = 10, 0.05


def is_lock(name: str) -> bool:
    """Whether a file of this name is the lock of a folder of parts, in one of its forms."""
    return bool(_LOCKS.fullmatch(name))


def is_own(name: str) -> bool:
    """Whether this program gives a file of a folder of parts such a name, beside those that it has for the whole."""
    return is_lock(name) or bool(_PARTS.fullmatch(name))


class PartsFolder:
    """The parts of one job, while this process alone may write them; made by `hold_parts`."""

    def __init__(self, path: Path, job: TagJob) -> None:
        self.path = path
        self._job = job

    def part(self, group: int) -> TagPart | None:
        """What is in the part of a group; None if there is none of this job, or it is not whole."""
        try:
            return self._job.read_part(self.path / part_name(group), group)
        except (OSError, ValueError):
            return None

    def check(self, groups: Sequence[int], items: int) -> int:
        """Make sure that all parts are there and whole, of this job, with so many items altogether; gives their tags.

        Raises:
            UserError: naming the part that is not.
        """
        found_items = tags = 0
        for group in groups:
            path = self.path / part_name(group)
            try:
                part = self._job.read_part(path, group)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"The part '{path}' was changed while tags were made ({error}): run the same command again, alone; "
                    "nothing was written."
                ) from error
            found_items += part.items
            tags += part.tags
        if found_items != items:
            raise UserError(
                f"The parts in '{self.path}' hold {found_items:,} pictures but the store has {items:,}: it was changed "
                "while it was tagged; run the same command again."
            )
        return tags

    def batches(self, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """The tags of all parts, one batch at a time.

        Raises:
            UserError: for a tag that is no class of the job.
        """
        classes = text_column(self._job.prompts.class_names)
        for group in groups:
            for batch in pq.ParquetFile(self.path / part_name(group)).iter_batches():
                strange = batch.column("tag").unique()
                strange = strange.filter(pc.invert(pc.is_in(strange, classes)))
                if len(strange):
                    raise UserError(
                        f"The part '{self.path / part_name(group)}' has the tag {strange[0].as_py()!r}, which is "
                        "none of the words of this run: run the same command again; nothing was written."
                    )
                yield batch.replace_schema_metadata(None)

    def untagged(self, groups: Sequence[int]) -> Iterator[str]:
        """The items of all parts that were scored and have no tag, one part's at a time."""
        for group in groups:
            yield from self._job.untagged_of(self.path / part_name(group))

    def _begin(self) -> None:
        """Keep the parts of this very job; those of another one that was not finished are removed."""
        job = {"format": _FORMAT, "job": self._job.text}
        if _read_job(self.path) != job:
            self.clear()
            write_atomically(self.path / JOB, json.dumps(job))

    def clear(self) -> None:
        """Remove what is ours but for the lock."""
        for entry in list(self.path.iterdir()):
            if (entry.name == JOB or is_own(entry.name)) and not is_lock(entry.name) and entry.is_file():
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_parts(out: Path, job: TagJob) -> Iterator[PartsFolder]:
    """The folder of parts of ``job`` beside ``out``, for this process alone.

    If the body ends well the folder goes away, unless a user put something in it; otherwise it stays for the next run.

    Raises:
        UserError: if another process makes these tags, something else lies there, or the place cannot be written.
    """
    path = parts_path(out)
    with contextlib.ExitStack() as stack:
        _enter(path, out, stack)
        folder = PartsFolder(path, job)
        folder._begin()
        yield folder
        folder.clear()
    with contextlib.suppress(OSError):  # not empty: somebody else's is in it, or the next run has begun
        path.rmdir()


def check_parts_place(out: Path) -> None:
    """Make sure, before any work, that the parts of ``out`` can be made in their place; nothing is made.

    Raises:
        UserError: if something lies there that this program did not make, or another process writes there.
    """
    path = parts_path(out)
    what = None
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        what = "what lies there is not one"
    elif path.is_dir() and not _has_our_job(path):
        strange = next((e.name for e in path.iterdir() if not is_own(e.name)), None)
        what = f"what lies there holds '{strange}'" if strange else None
    if what:
        raise UserError(
            f"Tags for '{out}' are made in a folder of this program's own, '{path}', but {what}: move it away, or "
            "choose another place with --out."
        )
    writer = find_writer(open_files(path)) if path.is_dir() else None
    if writer is not None:
        raise UserError(
            f"The tags '{out}' are being written by {writer}: wait for it or stop it, or choose another place with "
            "--out."
        )


def parts_path(out: Path) -> Path:
    """The folder of parts of ``out``."""
    return out.with_name(out.name + ".parts")


def _enter(path: Path, out: Path, stack: contextlib.ExitStack) -> None:
    """Make the folder if need be, and lock it.

    Raises:
        UserError: as `hold_parts`.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            check_parts_place(out)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(out, error) from error
        try:
            stack.enter_context(hold_lock(open_files(path)))
            return
        except UserError:
            # Another run was faster, which `check_parts_place` says in its own words; or the one before has just ended
            # and taken its folder along; or somebody only looked who writes here.
            if not tries_left:
                raise
            time.sleep(_TRY_SECONDS)


def _has_our_job(path: Path) -> bool:
    job = _read_job(path)
    return isinstance(job, dict) and job.get("format") == _FORMAT


def _read_job(path: Path) -> Any:
    """What the file of the job says; None if there is none that can be read."""
    try:
        return read_json(path / JOB, _MOST_JOB_BYTES)
    except (ItemError, ValueError):
        return None
