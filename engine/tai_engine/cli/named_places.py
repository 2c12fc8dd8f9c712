"""What a command reads and what it writes, held against each other before the work: no result replaces its own source.

Options of the type `Path` name files of this machine: an address there is said so, instead of being taken for a folder
called ``s3:``. Where a result goes may not lie in a Zarr store, which holds its own files alone, and may not be a file
that the same command reads, or what belongs to that.
"""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tai_engine.addresses import is_address, local_path
from tai_engine.errors import UserError

if TYPE_CHECKING:
    from tai_engine.store import FeatureStore

_WRITTEN = ("out", "sheet", "report", "run", "journal", "cache", "results")
"""Parameters that results go to; of `tai cache`, the store too."""
_READ_TEXTS = (
    "source", "store", "vocabulary", "sentences", "init", "splits", "picture", "images", "like", "model", "truth",
)  # fmt: skip
"""Parameters of text that may name what is read; those of the type `Path` all do."""
_STORE_FILE = "zarr.json"
# What is left of an address where it was taken for a path: of two slashes one.
_ONCE_AN_ADDRESS = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def guard_places(command: Any) -> None:
    """Have a command, and those below it, check what was named before they begin.

    Args:
        command: as typer makes it of an application.
    """
    below = getattr(command, "commands", {})
    for one in below.values():
        guard_places(one)
    if below:
        return
    work, paths = command.invoke, _path_parameters(command)

    def invoke(context: Any) -> Any:
        options = {one.name: _called(max(one.opts, key=len)) for one in command.params}
        given = context.params
        given.update({name: _here(options[name], given.get(name)) for name in paths})
        check_places(given, options, paths, writes_store=command.name in ("images", "texts"))
        return work(context)

    command.invoke = invoke


def check_places(
    given: Mapping[str, Any], options: Mapping[str, str], paths: frozenset[str], *, writes_store: bool = False
) -> None:
    """Refuse results that would replace what is read, or lie in a store.

    Args:
        given: the parameters of a command, by name.
        options: what the user calls each of them.
        paths: those that are paths.
        writes_store: whether the parameter ``store`` is what is written.

    Raises:
        UserError: naming both.
    """
    written = (*_WRITTEN, "store") if writes_store else _WRITTEN
    outputs = {name: path for name in written if (path := _local(given.get(name))) is not None}
    inputs = [
        (options[name], path)
        for name, value in given.items()
        if name not in outputs and (name in paths or name in _READ_TEXTS)
        for one in (value if isinstance(value, list | tuple) else (value,))
        if (path := _local(one)) is not None
    ]
    for name, out in outputs.items():
        _refuse_store(options[name], out, is_new_store=name == "store")
        own = [(options[other], path) for other, path in outputs.items() if other != name]
        for option, path in [*inputs, *own]:
            for what, place in _belonging(path, with_journal=name != "journal"):
                if _is_same(out, place):
                    raise UserError(
                        f"{options[name]} is '{out}', which is {what}{option}: it would be replaced by what is made of "
                        "it; name another place."
                    )


def refuse_picture(option: str, out: Path, images: Path | None, store: FeatureStore) -> None:
    """Refuse a drawing that would replace one of the pictures of a store.

    Raises:
        UserError: if ``out`` is one of them.
    """
    from tai_engine.sources.ids import id_from_path

    if images is None or not out.exists():
        return
    relative = os.path.relpath(os.path.realpath(out), os.path.realpath(images))
    if not relative.startswith("..") and id_from_path(relative) in store.known_ids():
        raise UserError(f"{option} is '{out}', which is a picture of the store {store.path}: name another place.")


def _called(spelling: str) -> str:
    return spelling if spelling.startswith("-") else spelling.upper()


def _path_parameters(command: Any) -> frozenset[str]:
    hints = typing.get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
    return frozenset(name for name, hint in hints.items() if Path in (hint, *_types_in(hint)))


def _types_in(hint: Any) -> Iterator[Any]:
    for one in typing.get_args(hint):
        yield one
        yield from _types_in(one)


def _here(option: str, value: Any) -> Any:
    """A path, or several, none of them an address."""
    if isinstance(value, list | tuple):
        return type(value)(_here(option, one) for one in value)
    if not isinstance(value, str | Path) or not (found := _ONCE_AN_ADDRESS.match(str(value).replace("://", ":/", 1))):
        return value
    address = f"{found[1]}://{str(value).replace('://', ':/', 1)[found.end() :]}"
    if found[1].lower() in ("file", "local"):
        return Path(local_path(f"{found[1]}:///{address.partition('://')[2].lstrip('/')}") or "")
    raise UserError(f"{option} is the address '{address}', and has to be a file or folder of this machine: copy it.")


def _local(value: Any) -> Path | None:
    """The path that a parameter stands for, if it may be one."""
    if not isinstance(value, str | Path) or not str(value):
        return None
    text = str(value).removeprefix("local-dir:")
    if is_address(text):
        local = local_path(text)
        return None if local is None else Path(local)
    return Path(text)


def _refuse_store(option: str, out: Path, *, is_new_store: bool) -> None:
    whole = Path(os.path.realpath(out))
    folders = whole.parents if is_new_store or not whole.is_dir() else (whole, *whole.parents)
    for folder in reversed(folders):  # an array in a store has such a file too
        if os.path.isfile(folder / _STORE_FILE):  # noqa: PTH113 - Path raises where a folder may not be read
            raise UserError(
                f"{option} is '{out}', which lies in the store '{folder}': only its own files may be there; name "
                "another place."
            )


def _belonging(path: Path, *, with_journal: bool) -> Iterator[tuple[str, Path]]:
    """What is read where ``path`` is, in words and by name: itself, and what stands beside a file of tags."""
    from tai_engine.cli.results_option import results_at

    results = results_at(path)
    if results is None:
        yield "what is read for ", path
        tags = [path]
    else:
        tags = [results.tags]
        for one in (results.tags, results.store, results.prompts):
            yield "what is read for ", one
    for one in tags:
        yield "the provenance of ", Path(f"{one}.provenance.json")
        if with_journal:
            yield "the journal of decisions beside ", Path(f"{one}.decisions.jsonl")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file; a folder is not replaced, but has files put into it."""
    try:
        return os.path.samefile(one, other) and not os.path.isdir(one)  # noqa: PTH112, PTH121 - may be no names at all
    except (OSError, ValueError):
        return "\0" not in f"{one}{other}" and os.path.realpath(one) == os.path.realpath(other)
