"""Where the items of a store come from: its sources, each with the beginning of the ids of its items.

They stand in the attributes of the store as ``sources``, which stores that were made before have not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.layout.spec import ATTRIBUTE
from tai_engine.store.places.abstract_files import METADATA, StoreFiles


@dataclass(frozen=True)
class Origin:
    """A source of a store.

    Attributes:
        place: its path or address; the same for every spelling of it.
        prefix: what the ids of its items begin with; empty for a source whose items are named by their paths alone.
    """

    place: str
    prefix: str = ""


def origins_of(attributes: Mapping[str, Any]) -> tuple[Origin, ...]:
    """The sources that the attributes of a store name; none if they make no sense, as in a store that knows none."""
    found = attributes.get("sources")
    if not isinstance(found, list):
        return ()
    try:
        origins = tuple(Origin(**one) for one in found)
    except TypeError:
        return ()
    return origins if all(isinstance(text, str) for one in origins for text in (one.place, one.prefix)) else ()


def owner_of(name: str, prefixes: Iterable[str]) -> str | None:
    """The longest of some prefixes that an id begins with, None if it begins with none."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def require_same_place(known: Iterable[Origin], wanted: Origin, has_moved: bool, path: object) -> None:
    """Refuse to bring items of one source up to date with another one.

    Args:
        known: the sources of the store.
        wanted: the source of this run.
        has_moved: whether it is the one that the store knows, at another place.
        path: of the store.

    Raises:
        UserError: naming both.
    """
    before = next((one.place for one in known if one.prefix == wanted.prefix), None)
    if before is None or before == wanted.place or has_moved:
        return
    whose = f"with the prefix {wanted.prefix!r} " if wanted.prefix else ""
    name = re.sub(r"[^\w.-]+", "_", wanted.place.rstrip("/").rpartition("/")[2]).strip("._") or "other"
    raise UserError(
        f"The store {path} holds pictures {whose}of {before}, but this run is about {wanted.place}, whose pictures "
        f"would replace those of the same names: keep both with --id-prefix {name}/, choose another store, or say "
        "--moved if it is the same collection at another place."
    )


def write_origin(store: StoreFiles, known: Iterable[Origin], wanted: Origin) -> tuple[Origin, ...]:
    """Note a source in the attributes of a store, in the place of the one with the same prefix; all of them then.

    Raises:
        OSError: if the attributes cannot be read.
        UserError: if the place refuses.
    """
    origins = (*(one for one in known if one.prefix != wanted.prefix), wanted)
    metadata = parse_json(store.read(METADATA))
    metadata["attributes"][ATTRIBUTE]["sources"] = [asdict(one) for one in origins]
    store.write(METADATA, json.dumps(metadata, indent=2))
    return origins
