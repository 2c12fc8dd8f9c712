"""Taggers that are killed, and taggers that want the same file at once; what is left must be one whole run's tags.

    python -m tai_benchmarks.tag_contest --kills 50 --pairs 50

A killed run is gone on with by the same command, or replaced by one with other words. Of two runs with different words
on one output, whoever writes second has to be told. After each trial the file must hold exactly the tags of one
undisturbed run, and nothing else may lie beside it. Processes are forked from one that has everything loaded.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tai_benchmarks.cache_problem import random_prompts, write_store
from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.parts_folder import PartsFolder

STAGES = ("before the first part", "making parts", "writing the file", "clearing up")
DONE, REFUSED, BROKEN = 0, 2, 3
_ITEMS, _GROUP, _ROWS, _DIM = 400, 25, 2, 32
_WORDS = (30, 41)
"""Of the two vocabularies that contend."""


@dataclass
class Tally:
    """What the trials did.

    Attributes:
        killed: by the stage in which the run was.
        outcomes: of pairs: how both runs ended.
        wrong: descriptions of trials that did not leave exactly one run's tags.
    """

    killed: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """A histogram of each, and a summary line."""
        lines = [f"  killed {stage:<22}{self.killed[stage]:>5}  {'#' * self.killed[stage]}" for stage in STAGES]
        lines += [f"  {outcome:<29}{count:>5}  {'#' * count}" for outcome, count in sorted(self.outcomes.items())]
        whole = "every file holds the tags of one run, nothing lost, doubled or mixed, and nothing lies beside it"
        outcome = f"{len(self.wrong)} trials went wrong" if self.wrong else whole
        return "\n".join([*lines, f"{self.killed.total()} kills, {self.outcomes.total()} pairs; {outcome}"])


class Contest:
    """A store, two vocabularies, and the tags that undisturbed runs make of them.

    Args:
        folder: empty; some megabytes are put there.
        seed: of what is drawn.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._draw = random.Random(seed)
        self._folder = folder
        self._store = folder / "store"
        write_store(self._store, _ITEMS, _ROWS, _DIM, group_items=_GROUP, chunk_items=_GROUP)
        self._prompts = [random_prompts(words, _DIM) for words in _WORDS]
        self._out = folder / "out" / "tags.parquet"
        self._out.parent.mkdir()
        self._wanted: list[pa.Table] = []
        self._seconds = 0.0
        for prompts in self._prompts:
            begun = time.perf_counter()
            assert self._wait(self._start(prompts)) == DONE
            self._seconds = time.perf_counter() - begun
            self._wanted.append(pq.read_table(self._out, use_threads=False))
            self._out.unlink()

    def kill(self, tally: Tally) -> None:
        """Kill a run, start another, and look at what is left; counts if it was killed.

        Half of the kills come at moments drawn by chance, the others while the file is written and while the place of
        the parts is cleared up.
        """
        first = self._draw.randrange(2)
        second = self._draw.choice((first, first, 1 - first))
        aim = (None, None, "batches", "clear")[tally.killed.total() % 4]
        pid = self._start(self._prompts[first], aim, self._draw.randrange(2))
        if aim is None:
            time.sleep(self._draw.uniform(0, self._seconds))
            os.kill(pid, signal.SIGKILL)
        if self._wait(pid) == -signal.SIGKILL:
            stage = self._stage()
            tally.killed[stage] += 1
            status = self._wait(self._start(self._prompts[second]))
            if status != DONE:
                tally.wrong.append(f"kill {tally.killed.total()} ({stage}): the next run ended with {status}")
            self._check(f"kill {tally.killed.total()} ({stage})", [second], tally)
        self._clear()

    def pair(self, tally: Tally) -> None:
        """Two runs at once, the second up to one run's time later."""
        pids = [self._start(self._prompts[0])]
        time.sleep(self._draw.choice((0.0, self._draw.uniform(0, self._seconds))))
        pids.append(self._start(self._prompts[1]))
        names = {DONE: "done", REFUSED: "told who writes"}
        ends = [self._wait(pid) for pid in pids]
        tally.outcomes[" / ".join(names.get(end, f"status {end}") for end in ends)] += 1
        trial = f"pair {tally.outcomes.total()}"
        if not set(ends) <= names.keys() or DONE not in ends:
            tally.wrong.append(f"{trial}: the runs ended with {ends}")
        self._check(trial, [n for n in range(2) if ends[n] == DONE], tally)
        self._clear()

    def _start(self, prompts: PromptSet, aim: str | None = None, number: int = 0) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = BROKEN
        try:
            torch.set_num_threads(1)  # before threads do: what torch shares with its parent is made anew by the first
            if aim is not None:
                _kill_at(aim, number)
            tag_store(FeatureStore.open(self._store), prompts, self._out, device="cpu", slice_items=5)
            status = DONE
        except BaseException as error:
            told = isinstance(error, UserError) and "are being written by process" in str(error)
            status = REFUSED if told else BROKEN
            if not told:
                print(f"a run ended with {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def _wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _stage(self) -> str:
        parts = self._out.with_name(self._out.name + ".parts")
        made = len(list(parts.glob("*.parquet"))) if parts.is_dir() else 0
        if self._out.exists():
            return STAGES[3]
        return STAGES[0] if made == 0 else STAGES[1] if made < _ITEMS // _GROUP else STAGES[2]

    def _check(self, trial: str, possible: Sequence[int], tally: Tally) -> None:
        found = pq.read_table(self._out, use_threads=False) if self._out.exists() else None
        if found is None or not any(found.equals(self._wanted[n]) for n in possible):
            tally.wrong.append(f"{trial}: the tags are those of no run that was done")
        now = time.time()
        # Temporary names that a killed process left are cleared when they are a minute old.
        beside = [p.name for p in self._out.parent.iterdir() if p != self._out and not _is_fresh(p, now)]
        if beside:
            tally.wrong.append(f"{trial}: beside the file lies {beside}")

    def _clear(self) -> None:
        for path in sorted(self._out.parent.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def _kill_at(method: str, number: int) -> None:
    """Have this process killed when it calls a method of the parts' folder for the ``number``-th time, from 0."""
    real, calls = getattr(PartsFolder, method), Counter[str]()

    def watched(*arguments: Any) -> Any:
        calls[method] += 1
        if method == "batches":
            return _cut_off(real(*arguments), number)
        if calls[method] > number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(PartsFolder, method, watched)


def _cut_off(batches: Iterator[pa.RecordBatch], after: int) -> Iterator[pa.RecordBatch]:
    for number, batch in enumerate(batches):
        if number > after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch


def _is_fresh(path: Path, now: float) -> bool:
    return path.name.endswith(".tmp") and now - path.stat().st_mtime < 60


def contest(folder: Path, kills: int, pairs: int, seed: int = 0) -> Tally:
    """So many kills and pairs of taggers in ``folder``, which is empty."""
    tally, trials = Tally(), Contest(folder, seed)
    gc.freeze()  # a collection in a child would copy what it shares with its parent
    while tally.killed.total() < kills:
        trials.kill(tally)
    for _ in range(pairs):
        trials.pair(tally)
    gc.unfreeze()
    return tally


def main(arguments: list[str] | None = None) -> None:
    """Run the contest and print the tally."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.tag_contest", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        tally = contest(Path(name), options.kills, options.pairs, options.seed)
    print(tally.describe())
    for one in tally.wrong:
        print("wrong:", one)
    if tally.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
