"""Which items of a store belong to a source, which of them it has no more, and whether these may be deleted.

Where a whole drive, or another folder, is taken for the source, everything is missing: that is weak evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tai_engine.caching.changes import InputItem
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore
from tai_engine.store.inventory import Inventory
from tai_engine.store.origins import owner_of

MANY_MISSING = 0.2
"""A larger share of what a store has of a source is deleted only when that is said."""


def of_this_source(source: Iterable[InputItem], prefix: str, prefixes: Sequence[str]) -> Iterator[InputItem]:
    """The items of a source, whose ids must not be those of another source of the store."""
    for item in source:
        owner = owner_of(item.id, prefixes)
        if owner is not None and len(owner) > len(prefix):
            raise UserError(
                f"The id {item.id!r} begins like those of another source of this store ({owner!r}): give one of them "
                "another --id-prefix, or choose another store."
            )
        yield item


def missing_of(store: FeatureStore, inventory: Inventory, prefix: str) -> tuple[list[int], int]:
    """Positions of the items of one source that were not met, and about how many the store has of it."""
    unseen: list[int] = inventory.unseen().tolist()
    prefixes = {one.prefix for one in store.origins}
    if not prefixes - {prefix}:
        return unseen, len(inventory)
    ours = [position for position, name in store.ids_at(unseen) if (owner_of(name, prefixes) or "") == prefix]
    return ours, len(inventory) - len(unseen) + len(ours)


def why_not_to_delete(
    store: FeatureStore, source: object, missing: Sequence[int], total: int, delete_many: bool
) -> str:
    """Why what is missing is better kept, in words; empty if it may go."""
    # What lies in a folder that could not be read just now is not gone.
    if getattr(source, "left_out", 0):
        return "parts of the source could not be read"
    if delete_many:
        return ""
    empty = tuple(getattr(source, "empty_folders", ()))
    if empty:
        first = next((folder for _, name in store.ids_at(missing) for folder in empty if name.startswith(folder)), None)
        if first is not None:
            return (
                f"the folder {first} is empty now, as that of a drive is that is not mounted; --delete-many deletes "
                "them all the same"
            )
    if len(missing) > MANY_MISSING * total:
        return (
            f"{len(missing):,} of {total:,} is more than {MANY_MISSING:.0%} of what the store has of this source; "
            "--delete-many deletes them all the same"
        )
    return ""
