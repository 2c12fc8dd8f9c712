"""Classes by group: head, medium and tail of a long tail, seen and unseen, base and novel, or a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tai_engine.errors import MANY, UserError, unknown_choice
from tai_engine.regular_files import printable
from tai_engine.tables import parse_json, read_small
from tai_engine.vocabulary import comparable_name

BUILT_IN_SPLITS = ("coco-16-novel", "coco-48-17", "coco-lt", "voc-mlt")
MAX_BYTES = 4 * 2**20
ALL_GROUPS = "all groups"
"""All classes of all groups together: with seen and unseen ones, what is called generalised."""


@dataclass(frozen=True)
class ClassSplits:
    """Groups of classes; a class may be in several.

    Attributes:
        name: of a built-in one, or the path.
        groups: class names by group.
    """

    name: str
    groups: Mapping[str, tuple[str, ...]]

    def columns(self, class_names: Sequence[str]) -> dict[str, list[int]]:
        """Where the classes of each group stand among others, and of `ALL_GROUPS`; case and underscores do not count.

        Raises:
            UserError: for a class that is not among them.
        """
        place = {comparable_name(name): column for column, name in enumerate(class_names)}
        found: dict[str, list[int]] = {}
        for group, names in self.groups.items():
            for name in names:
                if comparable_name(name) not in place:
                    unknown = unknown_choice(f"class in the group {group!r}", name, class_names)
                    raise UserError(f"In the splits '{printable(self.name)}': {unknown}")
            found[group] = sorted({place[comparable_name(name)] for name in names})
        return {**found, ALL_GROUPS: sorted({column for columns in found.values() for column in columns})}


def load_splits(spec: str | Path) -> ClassSplits:
    """Built-in splits by their name, or one's own: TOML or JSON with a list of class names for each group.

    Args:
        spec: one of `BUILT_IN_SPLITS`, or a path.

    Raises:
        UserError: for an unknown name, a file that is missing or no TOML or JSON, or values that are no lists of names.
    """
    if str(spec) in BUILT_IN_SPLITS:
        text = (files("tai_engine.evaluation") / "class_splits.toml").read_text(encoding="utf-8")
        return _splits(str(spec), tomllib.loads(text)[str(spec)])
    path = Path(spec)
    if path.suffix.lower() not in (".toml", ".json"):
        unknown = unknown_choice("splits", str(spec), BUILT_IN_SPLITS)
        raise UserError(f"{str(unknown).rstrip('.?')}, or give a TOML or JSON file with class names by group.")
    text = read_small(path, f"splits '{printable(path)}'", MAX_BYTES)
    try:
        value = tomllib.loads(text) if path.suffix.lower() == ".toml" else parse_json(text)
    except ValueError as error:
        raise UserError(f"The splits '{printable(path)}' are not valid {path.suffix[1:].upper()} ({error}).") from None
    return _splits(str(spec), value)


def _splits(name: str, value: Any) -> ClassSplits:
    groups = value.items() if isinstance(value, dict) else ()
    if not groups or not all(_are_names(names) for _, names in groups) or len(groups) > MANY or ALL_GROUPS in value:
        raise UserError(
            f"The splits '{printable(name)}' must hold from 1 to {MANY} groups, each a list of class names, such as "
            f'head = ["person", "car"]; none may be called \'{ALL_GROUPS}\'.'
        )
    return ClassSplits(name, {group: tuple(names) for group, names in groups})


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
