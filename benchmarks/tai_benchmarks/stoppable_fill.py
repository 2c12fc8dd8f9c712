"""A store that is filled by a process which can be stopped at a stage of its work: decoding, writing, about to commit.

What an undisturbed process leaves is drawn and kept beside it, to be compared with. Processes are forked from one that
has everything loaded, on systems that can do that.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheReport
from tai_engine.decoding.pixels import SquarePixels
from tai_engine.decoding.process import WorkerProcess
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore

STAGES = ("elsewhere", "decoding", "encoding", "writing", "before a commit")
AIMED = ("decoding", "writing", "before a commit")
"""Stages in which a process can be told to kill itself."""
DONE, USAGE, INTERRUPTED = 0, 2, 130

_RECORDS = "commits"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class ToyEncoder:
    """Coarse is the mean colour of 8 x 8 pixels, and each half of them is a fine row. It needs no threads."""

    def __init__(self) -> None:
        self.space_key = "space:toy"
        self.recipe_key = "img8:toy"
        self.recipe: dict[str, Any] = {"image_size": 8}
        self.provenance: dict[str, str | int | float] = {"model": "toy"}
        self.dim = 4
        self.rows_per_image = 2
        self.has_coarse_clip = False
        self.preprocess = SimpleNamespace(pixels=SquarePixels(8))

    def prepare_images(self) -> None:
        """There is but one way."""

    def encode_pixels(self, pixels: Tensor, ids: Sequence[str]) -> FeatureBatch:
        """uint8 [N, 3, 8, 8] to features."""
        values = torch.cat([pixels.float(), torch.ones(len(ids), 1, 8, 8)], dim=1)
        halves = torch.stack([values[..., :4].mean((2, 3)), values[..., 4:].mean((2, 3))], dim=1).flatten(0, 1)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=torch.nn.functional.normalize(values.mean((2, 3)), dim=1),
            fine=torch.nn.functional.normalize(halves, dim=1),
            offsets=torch.arange(len(ids) + 1) * 2,
            space_key=self.space_key,
        )


@dataclass(frozen=True)
class Collections:
    """A folder of pictures as it was and as it is now, and the store of each that an undisturbed run makes."""

    before: Path
    after: Path
    store_before: Path
    store_after: Path


def draw_collections(folder: Path) -> Collections:
    """26 pictures of which two are broken, then with four new, three changed and two gone; and the stores of both."""
    collections = Collections(*(folder / name for name in ("before", "after", "store-before", "store-after")))
    collections.before.mkdir(parents=True)
    for number in range(26):
        data = _picture(number)
        _write(collections.before / f"{number:03d}.png", data[:40] if number in (4, 17) else data, time=number)
    shutil.copytree(collections.before, collections.after)
    for number in (3, 11, 12):
        _write(collections.after / f"{number:03d}.png", _picture(number + 100), time=number + 100)
    for number in (0, 20):
        (collections.after / f"{number:03d}.png").unlink()
    for name, number in (("001b", 30), ("013b", 31), ("013c", 32), ("099", 33)):
        _write(collections.after / f"{name}.png", _picture(number), time=number)
    fill(collections.before, collections.store_before)
    shutil.copytree(collections.store_before, collections.store_after)
    fill(collections.after, collections.store_after)
    return collections


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", (16, 16), (number % 256, 9, 7))
    image.paste((7, number % 256, 99), (8, 0, 16, 16))
    image.save(file, "PNG")
    return file.getvalue()


def _write(path: Path, data: bytes, time: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(10**18 + time, 10**18 + time))


def fill(pictures: Path, store: Path, workers: int = 2) -> CacheReport:
    """What `tai cache images PICTURES STORE --delete-missing` does, in small groups."""
    options = CacheOptions(group_items=8, slice_items=3, workers=workers, delete_missing=True, timeout_seconds=30)
    return cache_images(open_source(str(pictures)), ToyEncoder(), store, options=options)


def content_of(store: Path) -> dict[str, bytes]:
    """Every file that counts: chunks, records and descriptions, but for the time that the store was made."""
    files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    is_left = (".tmp", ".partial", ".lock")  # what a killed writer leaves means nothing
    return {
        name: path.read_bytes() for name, path in files.items() if not name.endswith(is_left) and name != "zarr.json"
    }


def features_of(store: Path) -> list[tuple[str, str, str | None, bytes]]:
    """Id, state, reason and vectors of every item, in the order of the ids; a doubled id comes twice."""
    filled = FeatureStore.open(store)
    rows: dict[str, list[bytes]] = {}
    for batch in filled.iter_batches():
        for number, name in enumerate(batch.ids):
            one = batch[number : number + 1]
            rows.setdefault(name, []).append(one.coarse.numpy().tobytes() + one.fine.numpy().tobytes())
    return sorted(
        (item.id, item.status, item.reason, rows[item.id].pop() if item.status == "done" else b"")
        for item in filled.ledger()
    )


class StopPoint:
    """Does something in a forked process the ``number``-th time that it comes to a stage, and notes where it is.

    Args:
        store: whose files are watched.
        where: one byte that is shared with the parent: the index in `STAGES`.
        stage: one of `AIMED`, or None to do nothing.
        number: from 0.
        action: what is done.
    """

    def __init__(
        self, store: Path, where: mmap.mmap, stage: str | None, number: int, action: Callable[[], None]
    ) -> None:
        self._store = str(store)
        self._records = os.path.join(self._store, _RECORDS)  # noqa: PTH118 - text
        self._where = where
        self._stage = stage
        self._number = number
        self._action = action
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def install(self) -> None:
        """Watch this process for the rest of its life."""
        decode, encode = WorkerProcess.decode, ToyEncoder.encode_pixels

        def watched_decode(*arguments: Any) -> Any:
            self.come_to("decoding")
            return decode(*arguments)

        def watched_encode(*arguments: Any) -> Any:
            self.come_to("encoding")
            return encode(*arguments)

        setattr(WorkerProcess, "decode", watched_decode)  # noqa: B010 - a name that mypy lets pass
        setattr(ToyEncoder, "encode_pixels", watched_encode)  # noqa: B010 - a name that mypy lets pass
        sys.addaudithook(self._audit)

    def come_to(self, stage: str) -> None:
        """Note the stage; act if this is the time."""
        with self._lock:  # also while acting, or another thread would change what is noted
            self._where[0] = STAGES.index(stage)
            self.counts[stage] += 1
            if stage == self._stage and self.counts[stage] - 1 == self._number:
                self._action()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in ("os.rename", "os.link"):
            path = arguments[1]
        else:
            return
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self._store + os.sep):
            return
        if os.fspath(path).endswith(".lock"):
            return
        is_record = os.fspath(path).startswith(self._records)
        if is_record and event == "open":
            return  # the temporary file is there in a moment; the commit is its renaming
        self.come_to("before a commit" if is_record else "writing")


def run_forked(
    pictures: Path,
    store: Path,
    stage: str | None,
    number: int,
    action: Callable[[], None],
) -> tuple[int, mmap.mmap]:
    """Fill a store in a forked process; returns its id, and the byte that says where it is."""
    where = mmap.mmap(-1, 1)
    pid = os.fork()
    if pid:
        return pid, where
    status = 1
    try:
        StopPoint(store, where, stage, number, action).install()
        fill(pictures, store)
        status = DONE
    except KeyboardInterrupt:
        status = INTERRUPTED
    except UserError as error:
        (store.parent / "message").write_text(str(error))
        status = USAGE
    finally:
        os._exit(status)


def kill_self() -> None:
    """kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def count_stops(pictures: Path, store: Path) -> Counter[str]:
    """How often each stage is come to in an undisturbed run, which is done to ``store``."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            point = StopPoint(store, mmap.mmap(-1, 1), None, 0, kill_self)
            point.install()
            fill(pictures, store)
            os.write(writing, repr(dict(point.counts)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return Counter({stage: int(said.partition(f"'{stage}': ")[2].split(",")[0].rstrip("}") or 0) for stage in STAGES})
