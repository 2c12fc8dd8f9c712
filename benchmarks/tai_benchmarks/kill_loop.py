"""A store that is filled and updated under kill -9, again and again; after each kill it is brought to its end.

    python -m tai_benchmarks.kill_loop --kills 200
    python -m tai_benchmarks.kill_loop --sleeps 50

What is left must be equal, byte by byte, to the store of a run that nobody disturbed. Processes are killed while they
decode, while they write chunks, just before a commit (a record is written to its temporary name, but not renamed yet),
and at moments drawn by chance. They are forked from one that has everything loaded, on systems that can do that.

With ``--sleeps``, writers of a store that is locked by leases, as on an object store, are put to sleep (SIGSTOP) at
such moments until their lease is void; another process takes the store over and does the same work, and then the
sleeper wakes. Nothing may be lost or doubled, and every picture must have the features of an undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
from tai_engine.store.places import lease, lock
from tai_engine.store.upkeep.verify import verify_store

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


@dataclass
class KillTally:
    """What the kills did.

    Attributes:
        killed: kills by the stage in which the process was.
        finished: processes that were done before they could be killed.
        differing: descriptions of stores that were not equal to the undisturbed one in the end.
    """

    killed: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    differing: list[str] = field(default_factory=list)

    def describe(self, deed: str = "kill", outcome: str = "resumed", sameness: str = ", byte by byte") -> str:
        """A histogram and a summary line."""
        kills = self.killed.total()
        lines = [f"  {stage:<16}{self.killed[stage]:>5}  {'#' * self.killed[stage]}" for stage in STAGES]
        equal = f"every store equal to an undisturbed one{sameness}: nothing lost, nothing doubled"
        verdict = f"{len(self.differing)} stores differ from undisturbed ones" if self.differing else equal
        return "\n".join([f"{deed}s while", *lines, f"{kills} {deed}s, {kills} {outcome}; {verdict}"])


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


def kill_loop(folder: Path, kills: int, seed: int = 0) -> KillTally:
    """Kill ``kills`` processes that fill or update a store, resume after each, and compare.

    A quarter of the kills is aimed at each of the stages in `AIMED`, and a quarter at moments drawn by chance.

    Args:
        folder: empty; some megabytes are put there.
        kills: how many.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    collections = draw_collections(folder)
    scenarios = []
    for pictures, start, end in (
        (collections.before, None, collections.store_before),
        (collections.after, collections.store_before, collections.store_after),
    ):
        rehearsal = folder / "rehearsal"
        _begin_with(start, rehearsal)
        begun = time.perf_counter()
        stops = count_stops(pictures, rehearsal)
        scenarios.append((pictures, start, content_of(end), stops, time.perf_counter() - begun))
        shutil.rmtree(rehearsal)
    tally, store = KillTally(), folder / "store"
    gc.freeze()  # a collection in a child would copy what it shares with its parent
    while tally.killed.total() < kills:
        aims = (*AIMED, None)
        stage = aims[tally.killed.total() % len(aims)]
        pictures, start, wanted, stops, seconds = draw.choice(scenarios)
        _begin_with(start, store)
        number = draw.randrange(stops[stage]) if stage else 0
        pid, where = run_forked(pictures, store, stage, number, kill_self)
        if stage is None:
            time.sleep(draw.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            tally.finished += 1
            shutil.rmtree(store)
            continue
        died_in = STAGES[where[0]]
        tally.killed[died_in] += 1
        fill(pictures, store)
        if content_of(store) != wanted:
            tally.differing.append(f"seed {seed}, kill {tally.killed.total()} ({died_in}, aimed at {stage} {number})")
        shutil.rmtree(store)
    gc.unfreeze()
    return tally


def _begin_with(start: Path | None, store: Path) -> None:
    if start is not None:
        shutil.copytree(start, store)


@contextlib.contextmanager
def short_leases() -> Iterator[None]:
    """No file locks in this process and those that it forks, and leases that live for less than a second."""
    names = ("RENEW_SECONDS", "EXPIRY_SECONDS", "MARGIN_SECONDS", "SETTLE_SECONDS")
    before = {name: getattr(lease, name) for name in names}
    locks = lock.fcntl
    vars(lease).update(dict(zip(names, (0.1, 0.8, 0.2, 0.02), strict=True)))
    vars(lock)["fcntl"] = None
    try:
        yield
    finally:
        vars(lease).update(before)
        vars(lock)["fcntl"] = locks


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


def sleep_loop(folder: Path, sleeps: int, seed: int = 0) -> KillTally:
    """Put ``sleeps`` writers to sleep, let another one take their store over, wake them, and compare.

    Args:
        folder: empty; some megabytes are put there.
        sleeps: how many.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    collections = draw_collections(folder)
    tally, store = KillTally(), folder / "store"
    with short_leases():
        scenarios = []
        for pictures, start, end in (
            (collections.before, None, collections.store_before),
            (collections.after, collections.store_before, collections.store_after),
        ):
            rehearsal = folder / "rehearsal"
            _begin_with(start, rehearsal)
            begun = time.perf_counter()
            stops = count_stops(pictures, rehearsal)
            scenarios.append((pictures, start, features_of(end), stops, time.perf_counter() - begun))
            shutil.rmtree(rehearsal)
        gc.freeze()
        while tally.killed.total() < sleeps:
            aims = (*AIMED, None)
            stage = aims[tally.killed.total() % len(aims)]
            pictures, start, wanted, stops, seconds = draw.choice(scenarios)
            _begin_with(start, store)
            number = draw.randrange(stops[stage]) if stage else 0
            pid, where = run_forked(pictures, store, stage, number, stop_self)
            if stage is None:
                time.sleep(draw.uniform(0, seconds))
                os.kill(pid, signal.SIGSTOP)
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                tally.finished += 1
                shutil.rmtree(store, ignore_errors=True)
                continue
            slept_in = STAGES[where[0]]
            fill_when_free(pictures, store)
            os.kill(pid, signal.SIGCONT)
            _, status = os.waitpid(pid, 0)
            tally.killed[slept_in] += 1
            what = f"seed {seed}, sleep {tally.killed.total()} ({slept_in}, aimed at {stage} {number})"
            if os.waitstatus_to_exitcode(status) not in (DONE, USAGE):
                tally.differing.append(f"{what}: the sleeper ended with {os.waitstatus_to_exitcode(status)}")
            elif not verify_store(store).is_sound or features_of(store) != wanted:
                tally.differing.append(what)
            shutil.rmtree(store)
        gc.unfreeze()
    return tally


def stop_self() -> None:
    """Fall asleep, all threads."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fill_when_free(pictures: Path, store: Path) -> None:
    """`fill` as soon as the lease of whoever sleeps is void."""
    end = time.monotonic() + 60
    while True:
        try:
            fill(pictures, store)
        except UserError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def main(arguments: list[str] | None = None) -> None:
    """Run the loop and print the tally."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.kill_loop", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--sleeps", type=int, default=0, help="this instead: so many writers fall asleep")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.sleeps:
            tally = sleep_loop(Path(name), options.sleeps, options.seed)
            print(tally.describe("sleep", "taken over", ""))
        else:
            tally = kill_loop(Path(name), options.kills, options.seed)
            print(tally.describe())
    for one in tally.differing:
        print("differs:", one)
    if tally.differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
