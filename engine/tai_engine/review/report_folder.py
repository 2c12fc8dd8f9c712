"""The page of a review as a folder that opens without a server: read-only, and whole with its thumbnails."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tai_engine.decoding.feed import DirectFeed, GroupTask
from tai_engine.decoding.pool import Decoded, DecodePool
from tai_engine.errors import UserError
from tai_engine.files import check_place, sync_directory, write_error
from tai_engine.review import page_data
from tai_engine.review.collection import Collection, NotShownError
from tai_engine.review.decisions import Decisions
from tai_engine.review.on_demand import TIMEOUT_SECONDS, preparation
from tai_engine.review.page import ENTRY, one_script, page_html
from tai_engine.review.small_jpeg import file_in
from tai_engine.unfinished import FOLDER_SUFFIX, temporary_folder, temporary_name

SAMPLE = 48
_PER_SUGGESTION = 17 * 4 / 3 + 16  # columns in base64, and numbers in rows
_PER_PICTURE = 30


@dataclass(frozen=True)
class ReportEstimate:
    """How large a report will be.

    Attributes:
        pictures: that will be in it.
        bytes: about so many.
        thumbnail_bytes: the mean of the thumbnails of a sample; 0 if none of it can be shown.
    """

    pictures: int
    bytes: int
    thumbnail_bytes: float


@dataclass(frozen=True)
class ReportResult:
    """What was written.

    Attributes:
        path: the folder.
        page: the file that is opened in a browser.
        pictures: with a thumbnail.
        failed: that cannot be shown, with ids and reasons of the first hundred.
        failed_count: how many these are in all.
        bytes: of all files.
    """

    path: str
    page: str
    pictures: int
    failed: tuple[tuple[str, str], ...]
    failed_count: int
    bytes: int


def estimate_report(collection: Collection, side: int, workers: int) -> ReportEstimate:
    """Make the thumbnails of a few pictures and reckon with them."""
    shown = len(collection) - collection.missing
    count = min(SAMPLE, shown)
    sample = [n * shown // count for n in range(count)]
    sizes = [len(data) for _, data, _ in _thumbnails(collection, sample, side, workers) if data is not None]
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    ids = sum(len(text) for text in collection.ids[:1000].to_pylist()) / min(1000, len(collection))
    data = len(collection.suggestions.classes) * _PER_SUGGESTION + len(collection) * (_PER_PICTURE + ids)
    page = sum(file.stat().st_size for file in page_data.STATIC.iterdir())
    page += len(page_data.to_json(page_data.facts(collection, "")))
    return ReportEstimate(shown, round(shown * mean + data + page), mean)


def check_report_place(out: str | Path) -> None:
    """Find out before the work whether a report can be written to ``out``.

    Raises:
        UserError: if something that is no report lies there, or the place cannot be written.
    """
    out = Path(out)
    if out.exists() and not _is_replaceable(out):
        raise UserError(f"'{out}' is there already and is no report: choose another place with --out.")
    check_place(out.parent, folder=True)


def write_report(
    collection: Collection,
    out: str | Path,
    decisions: Decisions,
    *,
    title: str,
    side: int,
    workers: int,
    estimate: ReportEstimate,
    progress: Callable[[int, int], None] | None = None,
) -> ReportResult:
    """Write the folder ``out``; it is there whole or not at all, and an older report of that name is replaced.

    Memory: the columns of suggestions and their base64, a chunk of rows, and a few pictures.

    Args:
        collection: the pictures and suggestions.
        out: the folder.
        decisions: what people decided.
        title: of the page.
        side: the square in pixels that thumbnails fit.
        workers: processes that decode.
        estimate: from `estimate_report`, to see that the disk has room.
        progress: called with the pictures done and in all.

    Raises:
        UserError: as `check_report_place`, if the disk has no room, or the file system refuses.
    """
    out = Path(out)
    check_report_place(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < estimate.bytes:
            raise UserError(
                f"The report needs about {estimate.bytes / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free at "
                f"'{out.parent}': free some space, choose another place with --out, or a smaller --thumbnail-size."
            )
        with temporary_folder(out) as temporary:
            result = _write(temporary, collection, decisions, title, side, workers, progress)
            os.sync()  # once for all files
            _put_in_place(temporary, out)
    except OSError as error:
        raise write_error(out, error) from error
    return ReportResult(str(out), str(out / "index.html"), *result)


def _write(
    folder: Path,
    collection: Collection,
    decisions: Decisions,
    title: str,
    side: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, tuple[tuple[str, str], ...], int, int]:
    written = 0

    def put(name: str, data: bytes) -> None:
        nonlocal written
        (folder / name).write_bytes(data)
        written += len(data)

    def put_data(name: str, value: Any) -> None:
        # A browser reads no data from a folder but scripts.
        put(f"data/{name}.js", b"taiReport(" + page_data.to_json(name) + b"," + page_data.to_json(value) + b");\n")

    for name in ("assets", "data/rows", "data/thumbnails"):
        (folder / name).mkdir(parents=True)
    put("index.html", page_html("report").encode("utf-8"))
    put(f"assets/{ENTRY}", one_script().encode("utf-8"))
    for name in (page_data.STYLE, page_data.ICON):
        put(f"assets/{name}", (page_data.STATIC / name).read_bytes())
    facts = page_data.facts(collection, title) | {"mode": "report", "freeWords": False, "heatmaps": []}
    put_data("facts", facts)
    put_data("columns", base64.b64encode(page_data.columns(collection)).decode("ascii"))
    put_data("decisions", page_data.decisions_snapshot(collection, decisions) | {"undo": None, "redo": None})
    for chunk in range(page_data.chunk_count(collection)):
        put_data(f"rows/{chunk}", page_data.rows(collection, chunk))
    failed: list[tuple[str, str]] = []
    failed_count = 0
    shown = len(collection) - collection.missing
    for done, (number, data, reason) in enumerate(_thumbnails(collection, range(shown), side, workers), 1):
        if data is not None:
            put(f"data/thumbnails/{number}.jpg", data)
        else:
            failed_count += 1
            if len(failed) < 100:
                failed.append((collection.ids[number].as_py(), reason))
        if progress:
            progress(done, shown)
    return shown - failed_count, tuple(failed), failed_count, written


def _thumbnails(
    collection: Collection, numbers: range | list[int], side: int, workers: int
) -> Iterator[tuple[int, bytes | None, str]]:
    """Number, file and reason to fail of each picture, in no certain order."""
    refused: list[tuple[int, str]] = []

    def tasks() -> Iterator[GroupTask]:
        for number in numbers:
            try:
                yield GroupTask(number, [collection.item(number)])
            except NotShownError as error:
                refused.append((number, str(error)))

    with closing(
        DecodePool(
            preparation(collection.read_bytes, side),
            workers=workers,
            window=2 * workers,
            timeout_seconds=TIMEOUT_SECONDS,
        )
    ) as pool:
        for decoded in pool.decode(DirectFeed(tasks())):
            if decoded is not None:
                yield _outcome(decoded)
    for number, reason in refused:
        yield number, None, reason


def _outcome(decoded: Decoded) -> tuple[int, bytes | None, str]:
    data = None if decoded.pixels is None else file_in(decoded.pixels)
    return decoded.job.group, data, decoded.outcome.reason or ""


def _is_replaceable(out: Path) -> bool:
    """Whether it is an older report, or an empty folder."""
    try:
        return not any(out.iterdir()) or (out / "data" / "facts.js").read_bytes().startswith(b'taiReport("facts",')
    except OSError:
        return False


def _put_in_place(temporary: Path, out: Path) -> None:
    """Rename the folder; an older one is moved out of the way first, and comes back if that goes wrong."""
    old = None
    if out.exists():
        old = temporary_name(out.parent, FOLDER_SUFFIX)
        out.rename(old)
    try:
        temporary.rename(out)
    except BaseException:
        if old is not None:
            old.rename(out)
        raise
    sync_directory(out.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
