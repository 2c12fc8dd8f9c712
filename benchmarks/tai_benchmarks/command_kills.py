"""Every command that writes, killed (kill -9) at any moment and then run again; what is left is what was wanted.

    python -m tai_benchmarks.command_kills --kills 50
    python -m tai_benchmarks.command_kills --kills 50 tag compact

Half of the kills are aimed: just before a file is opened for writing, renamed, linked or removed, or a folder is made
or removed, at one of these drawn by chance; the others come at moments drawn by chance. After a kill a file is the
older one or the new one; after the same command has run once more, all is as an undisturbed run leaves it, and no file
of a temporary name lies anywhere (those are made old enough to be cleared before). Processes are forked from one that
has everything loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import mmap
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import tai_engine
from tai_benchmarks.command_subjects import COMMANDS, Command, prepare
from tai_benchmarks.stoppable_fill import features_of
from tai_engine.store.places.abstract_files import METADATA
from tai_engine.store.places.damage import DamagedGroupError

_CHANGES = {"os.rename": 1, "os.link": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}
"""Audit events, and which of their arguments names what is changed."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TEMPORARY = re.compile(r".*\.(tmp|partial)")
_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
_OLD_SECONDS = 3600


@dataclass
class CommandTally:
    """What the kills of one command did.

    Attributes:
        kills: that hit it at work.
        finished: runs that were done before they could be killed.
        temporaries: files of temporary names that kills left, all cleared by the next run.
        wrong: descriptions of trials that did not end as an undisturbed run does.
    """

    kills: int = 0
    finished: int = 0
    temporaries: int = 0
    wrong: list[str] = field(default_factory=list)

    def describe(self, name: str) -> str:
        """One line."""
        outcome = f"{len(self.wrong)} went wrong" if self.wrong else "all as an undisturbed run leaves it"
        return f"{name:<22}{self.kills:>4} kills, {self.temporaries:>3} temporary files cleared: {outcome}"


@dataclass(frozen=True)
class Aim:
    """When a run is killed: before its change of that number, or after so many seconds; never if neither is said."""

    change: int | None = None
    seconds: float | None = None


class KillTrials:
    """Trials of one command in a folder that is laid out anew for each.

    Args:
        start: the folder as it is before the command; copied.
        work: where it is laid out.
        command: the command.
        log: where the command's words go.
    """

    def __init__(self, start: Path, work: Path, command: Command, log: Path) -> None:
        self._start, self._work, self._command, self._log = start, work, command, log
        self._changes = mmap.mmap(-1, 8)
        self._lay_out()
        self._before = self._content()
        begun = time.perf_counter()
        self._status = self._run(Aim())
        self._seconds = time.perf_counter() - begun
        self._count = int.from_bytes(self._changes[:8], "little")
        self._wanted = self._content()
        if self._status not in command.statuses:
            raise RuntimeError(f"{command.name} ended with status {self._status}: {log.read_text()[-2000:]}")

    def kill(self, draw: random.Random, tally: CommandTally) -> None:
        """One trial."""
        is_aimed = (tally.kills + tally.finished) % 2 == 0
        aim = Aim(change=draw.randrange(self._count)) if is_aimed else Aim(seconds=draw.uniform(0, self._seconds))
        what = f"{self._command.name}, {aim}"
        self._lay_out()
        if self._run(aim) != -signal.SIGKILL:
            tally.finished += 1
            return
        tally.kills += 1
        found = self._content()
        for name in self._command.files:
            if found.get(name) not in (self._before.get(name), self._wanted.get(name)):
                tally.wrong.append(f"{what}: {name} is neither the older file nor the new one")
        tally.temporaries += len(self._temporaries())
        self._age()
        status = self._run(Aim())
        if status != self._status:
            tally.wrong.append(f"{what}: the next run ends with status {status}: {self._log.read_text()[-300:]}")
        elif (found := self._content()) != self._wanted:
            differing = sorted(k for k in {*found, *self._wanted} if found.get(k) != self._wanted.get(k))
            tally.wrong.append(f"{what}: other than in an undisturbed run: {differing}")
        elif left := self._temporaries():
            tally.wrong.append(f"{what}: left for good: {left}")

    def _lay_out(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._start, self._work, symlinks=True)  # with the times of the pictures

    def _run(self, aim: Aim) -> int:
        self._changes[:8] = bytes(8)
        pid = os.fork()
        if not pid:
            run_here(self._command.arguments, self._work, self._log, _Changes(self._work, self._changes, aim.change))
        if aim.seconds is not None:
            time.sleep(aim.seconds)
            os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _content(self) -> dict[str, Any]:
        """Every result by its name: of stores the features, of Parquet the rows, of others the bytes but for times."""
        found: dict[str, Any] = {}
        for result in self._command.results:
            path = self._work / result
            if (path / METADATA).is_file():
                try:
                    found[result] = features_of(path)
                except DamagedGroupError as error:  # as the store is that is to be repaired
                    found[result] = str(error)
            elif path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file())
                found |= {str(file.relative_to(self._work)): content_of_file(file) for file in files}
            elif path.is_file():
                found[result] = content_of_file(path)
        return {name: value for name, value in found.items() if not _TEMPORARY.fullmatch(name)}

    def _temporaries(self) -> list[str]:
        return sorted(path.name for path in self._work.rglob("*") if _TEMPORARY.fullmatch(path.name))

    def _age(self) -> None:
        then = time.time() - _OLD_SECONDS
        for path in self._work.rglob("*"):
            if _TEMPORARY.fullmatch(path.name):
                os.utime(path, (then, then))


class _Changes:
    """Counts the changes below a folder, for the parent to see, and has this process killed before one of them."""

    def __init__(self, folder: Path, count: mmap.mmap, fatal: int | None) -> None:
        self._folder, self._count, self._fatal = f"{folder}{os.sep}", count, fatal

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Of `sys.addaudithook`."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = arguments[_CHANGES[event]]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        if not os.path.abspath(path).startswith(self._folder):  # noqa: PTH100 - a Path may be of bytes here
            return
        number = int.from_bytes(self._count[:8], "little")
        if number == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self._count[:8] = (number + 1).to_bytes(8, "little")


def run_here(arguments: Sequence[str], folder: Path, log: Path, watch: _Changes | None = None) -> None:
    """Be ``tai ARGUMENTS`` in this forked process, in ``folder``; it ends here."""
    status: object = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        if watch is not None:
            sys.addaudithook(watch)
        sys.argv = ["tai", *arguments]
        importlib.import_module("tai_engine.cli.main").main()  # as an installed `tai` does
        status = 0
    except SystemExit as error:
        status = error.code or 0
    finally:
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 1)


def content_of_file(path: Path) -> Any:
    """What counts in a file: nothing that says when it was made."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, use_threads=False)
        facts = {key: value for key, value in (table.schema.metadata or {}).items() if not _TIMES.fullmatch(value)}
        return table.to_pylist(), facts
    return _TIMES.sub(b"", path.read_bytes())


def kill_command(folder: Path, start: Path, command: Command, kills: int, seed: int = 0) -> CommandTally:
    """So many kills of one command; ``folder`` is for the trials, ``start`` as `prepare` made it."""
    draw, tally = random.Random(seed), CommandTally()
    trials = KillTrials(start, folder / "work", command, folder / "log")
    while tally.kills < kills and tally.finished < 4 * kills:
        trials.kill(draw, tally)
    return tally


def main(arguments: list[str] | None = None) -> None:
    """Kill, and print a line for each command."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.command_kills", description=__doc__)
    parser.add_argument("commands", nargs="*", help=f"by default all of: {', '.join(COMMANDS)}")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    _load_everything()
    wrong = Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.path.realpath(name))
        prepare(folder / "start", lambda given: run_forked_here(given, folder / "start", folder / "log"))
        gc.freeze()  # a collection in a child would copy what it shares with its parent
        for each in options.commands or COMMANDS:
            tally = kill_command(folder, folder / "start", COMMANDS[each], options.kills, options.seed)
            print(tally.describe(each), flush=True)
            for one in tally.wrong:
                print("  wrong:", one, flush=True)
            wrong[each] = len(tally.wrong)
    if wrong.total():
        sys.exit(1)


def _load_everything() -> None:
    """Import what commands import on their way: a forked process has it then."""
    for module in pkgutil.walk_packages(tai_engine.__path__, "tai_engine."):
        with contextlib.suppress(ImportError):  # of what is not installed
            importlib.import_module(module.name)
    importlib.import_module("open_clip")


def run_forked_here(arguments: Sequence[str], folder: Path, log: Path) -> None:
    """``tai ARGUMENTS`` in a forked process, in ``folder``.

    Raises:
        RuntimeError: if it does not end with status 0, with what it said.
    """
    pid = os.fork()
    if not pid:
        run_here(arguments, folder, log)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise RuntimeError(f"tai {' '.join(arguments)}: {log.read_text()[-2000:]}")


if __name__ == "__main__":
    main()
