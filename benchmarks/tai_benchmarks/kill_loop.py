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
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tai_benchmarks.stoppable_fill import (
    AIMED,
    DONE,
    STAGES,
    USAGE,
    content_of,
    count_stops,
    draw_collections,
    features_of,
    fill,
    kill_self,
    run_forked,
)
from tai_engine.errors import UserError
from tai_engine.store.places import lease, lock
from tai_engine.store.upkeep.verify import verify_store


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
