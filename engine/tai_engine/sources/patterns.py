"""Names of archives from a pattern such as ``train/shards-{000..099}.tar``."""

from __future__ import annotations

import glob
import itertools
import os
import re
from typing import NamedTuple

from braceexpand import braceexpand

from tai_engine.addresses import head_of, is_address, is_http, name_of, open_file_system, with_path
from tai_engine.errors import ItemError, UserError
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import TAR_SUFFIXES, is_tar_name
from tai_engine.sources.remote import PAUSES, with_retries

_BRACES = re.compile(r"\{([^{}]*)\}")
_MAGIC = re.compile(r"[*\[?]")
_WEB_MAGIC = re.compile(r"[*\[]")  # a question mark begins the query of a web address
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
_MAX_NAMES = 1_000_000


class Shard(NamedTuple):
    """One archive.

    Attributes:
        location: its path or address.
        stem: what stands before the names of its members in their ids.
        name: the stem with the archive's suffix: the id of the archive itself.
    """

    location: str
    stem: str
    name: str


def is_pattern(text: str) -> bool:
    """Whether a path or address has wildcards or braces in it."""
    return _has_wildcards(text) or _BRACES.search(text) is not None


def find_shards(spec: str, pauses: tuple[float, ...] = PAUSES) -> list[Shard]:
    """The archives that a name or pattern stands for, ranges of braces in their order, matches of wildcards by name.

    An archive's stem is its path from the last folder before the first wildcard or brace on, without the suffix: for
    ``train/*/shard-{0..9}.tar`` stems are like ``night/shard-3``.

    Args:
        spec: the path or address of an archive, or a pattern: ``{000..099}`` and ``{train,val}`` stand for every number
            or word, and local ones must all be there; ``*``, ``?`` and ``[...]`` for what is there, ``**`` for any
            folders.
        pauses: seconds before each further try of a listing behind an address.

    Raises:
        UserError: if there are none, some names are missing, some are no tar archives, or two would give the same ids.
    """
    if not is_address(spec) and os.path.exists(spec):  # noqa: PTH110 - Path raises where a folder may not be read
        names, folder = [spec], spec.rpartition("/")[0]
    else:
        names = [match for name in _expand_braces(spec) for match in _expand_wildcards(name, pauses)]
        folder = re.split(r"[*\[{]" if is_http(spec) else r"[*\[{?]", head_of(spec), maxsplit=1)[0].rpartition("/")[0]
    if not names:
        raise UserError(f"No archive fits the pattern '{spec}': check it, and put it in quotation marks.")
    wrong = next((name for name in names if not is_tar_name(_file_name(name))), None)
    if wrong is not None:
        raise UserError(
            f"'{wrong}' of the pattern '{spec}' is no tar archive: patterns name archives ({', '.join(TAR_SUFFIXES)}); "
            "of pictures, give their folder or a list."
        )
    missing = [] if is_address(spec) else [name for name in names if not os.path.exists(name)]  # noqa: PTH110
    if missing:
        more = f" and {len(missing) - 1} more of the pattern '{spec}'" if len(missing) > 1 else ""
        raise UserError(f"There is no archive '{missing[0]}'{more}: check the path.")
    shards = [_shard(name, folder) for name in names]
    _check_stems(shards)
    return shards


def _shard(name: str, folder: str) -> Shard:
    relative = head_of(name).removeprefix(folder).lstrip("/")
    inner = relative.rpartition("/")[0]
    label = id_from_path(f"{inner}/{_file_name(name)}" if inner else _file_name(name))
    suffix = next(s for s in sorted(TAR_SUFFIXES, key=len, reverse=True) if label.lower().endswith(s))
    return Shard(name, label[: -len(suffix)], label)


def _check_stems(shards: list[Shard]) -> None:
    """No stem may be another one or a folder of it, or their members could have the same ids."""
    ordered = sorted(shards, key=lambda shard: shard.stem + "/")
    for one, other in itertools.pairwise(ordered):
        if (other.stem + "/").startswith(one.stem + "/"):
            raise UserError(
                f"Pictures in '{one.location}' and in '{other.location}' could get the same ids, for these begin with "
                "the archive's name: rename or leave out one of them."
            )


def _file_name(place: str) -> str:
    return name_of(place) if is_address(place) else place.rpartition("/")[2]


def _expand_braces(text: str) -> list[str]:
    """Every text that the braces stand for; those without a comma or a range stay as they are."""
    if _BRACES.search(text) is None:
        return [text]
    # It would make a list of every range before the first name comes.
    if any(abs(int(last) - int(first)) >= _MAX_NAMES for first, last in _RANGE.findall(text)):
        raise _too_many(text)
    try:
        names = list(itertools.islice(braceexpand(text, escape=False), _MAX_NAMES + 1))
    except ValueError as error:
        raise UserError(f"The pattern '{text}' has an opening or a closing brace too many: mend it.") from error
    if len(names) > _MAX_NAMES:
        raise _too_many(text)
    return names


def _too_many(text: str) -> UserError:
    return UserError(f"The pattern '{text}' stands for more than {_MAX_NAMES:,} names: check its ranges.")


def _has_wildcards(text: str) -> bool:
    return (_WEB_MAGIC if is_http(text) else _MAGIC).search(head_of(text)) is not None


def _expand_wildcards(name: str, pauses: tuple[float, ...]) -> list[str]:
    """What is there of it, by name; a name without wildcards is itself, there or not."""
    if not _has_wildcards(name):
        return [name]
    if not is_address(name):
        found = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        return sorted(filter(os.path.isfile, found), key=os.fsencode)

    file_system, path = open_file_system(name)
    try:
        matches = with_retries(lambda: file_system.glob(path), pauses)
    except ItemError as error:
        raise UserError(f"'{name}' cannot be listed ({error.detail}): check the address.") from error
    if is_http(name):
        return sorted(map(str, matches))
    # Listings may put a slash before the path that the address does not have, or leave it out.
    slash = "/" if head_of(name).partition("://")[2].startswith("/") else ""
    paths = [slash + str(match).lstrip("/") for match in sorted(matches)]
    return [with_path(name, path) for path in paths]
