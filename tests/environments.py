"""What `make` installs: the versions that the tests passed with, and the oldest ones that pyproject.toml promises.

    python tests/environments.py install   # the project and its tools, with the versions of constraints.txt
    python tests/environments.py lock      # writes constraints.txt from what is installed
    python tests/environments.py oldest    # prints the oldest version of everything that the package needs

Run by the Python of the environment in question. Nothing outside Python's own library is needed but for ``lock``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "constraints.txt"
PROJECT = "tai-engine"
TOOLS = "dev"
BROUGHT_BY_TORCH = re.compile(r"nvidia-|cuda-|triton$")
"""Each build of torch for each platform names its own versions of these."""


class Installation(NamedTuple):
    """What pip did: whether it worked, and what it said if not."""

    worked: bool
    said: str


def canonical(name: str) -> str:
    """A distribution's name as all of its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, str]:
    """Name to version."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("==") for line in lines if line)


def oldest(project: Mapping[str, list[str]]) -> dict[str, str]:
    """The floor of every requirement of ``project``: a group's name to its requirements.

    Raises:
        ValueError: for one that has none.
    """
    floors = {}
    for requirement in (one for group in project.values() for one in group):
        found = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:\s*;.*)?", requirement)
        if found is None:
            raise ValueError(f"the requirement {requirement!r} names no oldest version (name>=version)")
        floors[canonical(found[1])] = found[2]
    return floors


def install(
    lock: Mapping[str, str], pip: Callable[[Mapping[str, str]], Installation]
) -> tuple[Installation, dict[str, str]]:
    """Install with the lock's versions, and without those that cannot be had here.

    Args:
        lock: name to version.
        pip: installs with the versions that it is given; all others are pip's choice.

    Returns:
        How the last try went, and what was left of the lock. What pip's complaint names is given up first; when it
        names nothing of the lock, all is.
    """
    kept = dict(lock)
    while True:
        result = pip(kept)
        if result.worked or not kept:
            return result, kept
        words = {canonical(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*[A-Za-z0-9]", complaint(result.said))}
        named = kept.keys() & words
        kept = {name: version for name, version in kept.items() if name not in named} if named else {}


def complaint(said: str) -> str:
    """The part of pip's output that says what could not be had."""
    before, found, conflict = said.partition("The conflict is caused by:")
    lines = [line for line in before.splitlines() if line.lstrip().startswith(("ERROR", "error"))]
    return "\n".join([*lines, conflict if found else ""])


def difference(lock: Mapping[str, str], kept: Iterable[str], version: Callable[[str], str | None]) -> str:
    """The line that says what is not as tested; empty when all is."""
    changed = {name: version(name) for name in sorted(lock.keys() - set(kept))}
    parts = [f"{name} {now} instead of {lock[name]}" for name, now in changed.items() if now not in (None, lock[name])]
    return f"Other versions than the tested ones, which cannot be had here: {', '.join(parts)}." if parts else ""


def installed_version(name: str) -> str | None:
    """The public version, or None; what stands behind a plus sign is a build, not a version."""
    try:
        return distribution(name).version.partition("+")[0]
    except PackageNotFoundError:
        return None


def installed_closure(roots: Sequence[str]) -> dict[str, str]:
    """Name to version of all that the requirements need in this environment, themselves included."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    todo, seen = [Requirement(root) for root in roots], set()
    while todo:
        wanted = todo.pop()
        name, extras = canonical(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen or (wanted.marker is not None and not wanted.marker.evaluate()):
            continue
        seen.add((name, extras))
        version = installed_version(name)
        if version is None:
            raise SystemExit(f"{wanted.name} is needed and not installed: run `make setup` first.")
        found[name] = version
        for line in distribution(name).requires or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                one.marker = None
                todo.append(one)
    return dict(sorted(found.items()))


def lock_text(versions: Mapping[str, str]) -> str:
    """The file's text: what the tests passed with, without what torch's own build decides."""
    lines = [f"{name}=={version}" for name, version in versions.items() if not BROUGHT_BY_TORCH.match(name)]
    return "# The versions that the tests passed with, made by `make lock`.\n" + "".join(f"{line}\n" for line in lines)


def pip_install(versions: Mapping[str, str], *options: str) -> Installation:
    """The project, editable, and its tools into the environment of this Python."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in versions.items()))
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--editable", str(ROOT), "--group", TOOLS]
        done = subprocess.run(
            [*command, "--constraint", file.name, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return Installation(done.returncode == 0, done.stdout)


def main() -> None:
    """Do what the first argument says."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = settings["project"], settings["dependency-groups"]
    match sys.argv[1:]:
        case ["install"]:
            lock = read_lock(LOCK) if LOCK.exists() else {}
            result, kept = install(lock, pip_install)
            sys.stderr.write("" if result.worked else complaint(result.said) or result.said)
            line = difference(lock, kept, installed_version) if result.worked else ""
            if line:
                print(line)
            sys.exit(0 if result.worked else 1)
        case ["lock"]:
            LOCK.write_text(lock_text(installed_closure([*project["dependencies"], *groups[TOOLS]])), encoding="utf-8")
        case ["oldest"]:
            versions = oldest({"dependencies": project["dependencies"], **project["optional-dependencies"]})
            print("\n".join(f"{name}=={version}" for name, version in versions.items()))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
