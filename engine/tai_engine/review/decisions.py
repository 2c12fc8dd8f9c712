"""What a person decided about pictures, apart from what the machine said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal["accept", "reject", "add"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MAX_TAG_LETTERS = 200
_LISTS = ("ids", "accept", "add", "reject", "clear")


@dataclass(frozen=True)
class PictureDecision:
    """What was decided of one picture.

    Attributes:
        verdicts: tag to ``"accept"`` (the suggestion holds), ``"add"`` (the person's own tag) or ``"reject"``.
        is_none: none of the tags is in the picture; whatever is not in ``verdicts`` is then rejected too.
        by, at: who decided last, and when (ISO 8601, UTC).
    """

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    is_none: bool = False
    by: str = ""
    at: str = ""

    @property
    def present(self) -> tuple[str, ...]:
        """The tags that hold, in the order in which they were decided."""
        return tuple(tag for tag, verdict in self.verdicts.items() if verdict != "reject")

    def verdict(self, tag: str) -> bool | None:
        """Whether the tag is in the picture; None where nobody decided."""
        verdict = self.verdicts.get(tag)
        if verdict is None:
            return False if self.is_none else None
        return verdict != "reject"

    def __bool__(self) -> bool:
        """Whether anything was decided at all."""
        return self.is_none or bool(self.verdicts)


UNDECIDED = PictureDecision()


@dataclass(frozen=True)
class Change:
    """One change for one or many pictures.

    Attributes:
        ids: of the pictures, at least one.
        accept, add, reject: tags that get this verdict.
        clear: tags that lose their verdict.
        none: True decides that none of the tags is there, and takes all verdicts away; False takes that back.

    Raises:
        ValueError: for a change of nothing, a tag in two places, or a name that is empty, too long or no text.
    """

    ids: tuple[str, ...]
    accept: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    none: bool | None = None

    def __post_init__(self) -> None:
        tags = (*self.accept, *self.add, *self.reject, *self.clear)
        if not self.ids or not (tags or self.none is not None):
            raise ValueError("a change names no picture, or does nothing to it")
        if len(set(tags)) != len(tags):
            raise ValueError("a tag stands in a change twice")
        if self.none and tags:
            raise ValueError("'none of these' goes with no tag")
        for tag in tags:
            check_tag(tag)

    @classmethod
    def from_json(cls, value: Any) -> Change:
        """The change in a journal's line or a browser's request.

        Raises:
            ValueError: for anything else.
        """
        if not isinstance(value, dict) or set(value) - {*_LISTS, "none"}:
            raise ValueError(
                f"a change is {_short(value)}, expected an object with ids, accept, add, reject, clear, none"
            )
        none = value.get("none")
        if none is not None and not isinstance(none, bool):
            raise ValueError(f"none is {_short(none)}, expected true or false")
        ids, accept, add, reject, clear = (_texts(value.get(key, []), key) for key in _LISTS)
        return cls(ids, accept, add, reject, clear, none)

    def to_json(self) -> dict[str, Any]:
        """The same for a journal's line; what is empty is left out."""
        lists = {key: list(getattr(self, key)) for key in _LISTS}
        return {key: names for key, names in lists.items() if names} | (
            {} if self.none is None else {"none": self.none}
        )

    def applied_to(self, before: PictureDecision, by: str, at: str) -> PictureDecision:
        """What holds of a picture after this change."""
        if self.none:
            return PictureDecision({}, True, by, at)
        verdicts = dict(before.verdicts)
        for tag in (*self.clear, *self.accept, *self.add, *self.reject):
            verdicts.pop(tag, None)  # so that the last decided tag stands last
        for verdict in VERDICTS:
            verdicts |= dict.fromkeys(getattr(self, verdict), verdict)
        is_none = before.is_none and self.none is None and not self.accept and not self.add
        return PictureDecision(verdicts, is_none, by, at)


@dataclass(frozen=True)
class Act:
    """One act of a person, undone as one.

    Attributes:
        revision: its number in the journal.
        changes: what it does.
        before: what held of its pictures; UNDECIDED where nothing was decided.
    """

    revision: int
    changes: tuple[Change, ...]
    before: Mapping[str, PictureDecision]

    @property
    def summary(self) -> str:
        """A few words for people, such as ``accept dog, 3 pictures``."""
        verbs = [
            f"{verb} {', '.join(tags[:3])}{' …' if len(tags) > 3 else ''}"
            for verb in (*VERDICTS, "clear")
            if (tags := list(dict.fromkeys(t for change in self.changes for t in getattr(change, verb))))
        ]
        nones = {change.none for change in self.changes} - {None}
        verbs += ["none of these"] if True in nones else ["not 'none of these'"] if nones else []
        count = len(self.before)
        return f"{'; '.join(verbs)}, {count:,} picture{'s' if count != 1 else ''}"


class Decisions(Mapping[str, PictureDecision]):
    """All that was decided, by picture, with undo and redo: what the entries of a journal add up to.

    Memory: about 500 bytes per decided picture, and as much again for each time that it was decided anew.

    Attributes:
        revision: of the last entry; 0 for none.
        favourites: the tags on the keys 1 to 9.
        tags_sha256: of the file of tags that was decided on last.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.favourites: tuple[str, ...] | None = None
        self.tags_sha256 = ""
        self._by_id: dict[str, PictureDecision] = {}
        self._done: list[Act] = []
        self._undone: list[Act] = []

    def __getitem__(self, item_id: str) -> PictureDecision:
        return self._by_id[item_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, item_id: str) -> PictureDecision:
        """What was decided of a picture, `UNDECIDED` if nothing was."""
        return self._by_id.get(item_id, UNDECIDED)

    @property
    def next_undo(self) -> Act | None:
        """The act that undo takes back."""
        return self._done[-1] if self._done else None

    @property
    def next_redo(self) -> Act | None:
        """The act that redo does again."""
        return self._undone[-1] if self._undone else None

    def apply(self, entry: Mapping[str, Any]) -> list[str]:
        """Take in the journal's next entry (see `journal`); ids of the pictures that it concerns.

        Raises:
            ValueError: for an entry that cannot follow here; nothing has changed then.
        """
        if entry.get("revision") != self.revision + 1:
            raise ValueError(f"the revision is {_short(entry.get('revision'))}, expected {self.revision + 1}")
        by, at = (str(entry.get(key, "")) for key in ("by", "at"))
        match entry.get("act"):
            case "decide":
                changed = self._decide(parse_changes(entry.get("changes")), by, at)
            case "undo":
                changed = self._undo(entry.get("of"))
            case "redo":
                changed = self._redo(entry.get("of"), by, at)
            case "favourites":
                self.favourites, changed = parse_favourites(entry.get("tags")), []
            case "tags":
                (self.tags_sha256,), changed = _texts([entry.get("tags_sha256")], "tags_sha256"), []
            case act:
                raise ValueError(f"the act is {_short(act)}, expected decide, undo, redo, favourites or tags")
        self.revision += 1
        return changed

    def _decide(self, changes: tuple[Change, ...], by: str, at: str) -> list[str]:
        before = {item_id: self.of(item_id) for change in changes for item_id in change.ids}
        for change in changes:
            for item_id in change.ids:
                self._by_id[item_id] = change.applied_to(self.of(item_id), by, at)
        self._drop_undecided(before)
        self._done.append(Act(self.revision + 1, changes, before))
        self._undone.clear()
        return list(before)

    def _undo(self, revision: object) -> list[str]:
        act = self.next_undo
        if act is None or act.revision != revision:
            raise ValueError(f"undo of {_short(revision)}, but the last act is {act and act.revision}")
        self._undone.append(self._done.pop())
        self._by_id.update(act.before)
        self._drop_undecided(act.before)
        return list(act.before)

    def _redo(self, revision: object, by: str, at: str) -> list[str]:
        act = self.next_redo
        if act is None or act.revision != revision:
            raise ValueError(f"redo of {_short(revision)}, but the last undone act is {act and act.revision}")
        undone = self._undone[:-1]
        changed = self._decide(act.changes, by, at)
        # It is the same act, so that undo can name it again.
        self._done[-1] = act
        self._undone = undone
        return changed

    def _drop_undecided(self, ids: Mapping[str, object]) -> None:
        for item_id in ids:
            if not self._by_id[item_id]:
                del self._by_id[item_id]


def parse_changes(value: Any) -> tuple[Change, ...]:
    """The changes of one act, at least one.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"changes are {_short(value)}, expected a list with at least one")
    return tuple(map(Change.from_json, value))


def parse_favourites(value: Any) -> tuple[str, ...]:
    """At most nine different tags.

    Raises:
        ValueError: for anything else.
    """
    tags = _texts(value, "favourites")
    if len(tags) > 9 or len(set(tags)) != len(tags):
        raise ValueError("favourites are at most nine different tags")
    for tag in tags:
        check_tag(tag)
    return tags


def check_tag(tag: str) -> None:
    """Refuse what is no tag.

    Raises:
        ValueError: for text that is empty, too long, blank at its ends, or holds control characters.
    """
    if not 0 < len(tag) <= MAX_TAG_LETTERS or tag != tag.strip() or not tag.isprintable():
        raise ValueError(
            f"the tag {_short(tag)} is no word: 1 to {MAX_TAG_LETTERS} printable characters without blanks at the ends"
        )


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{what} is {_short(value)}, expected a list of texts")
    for text in value:
        text.encode("utf-8")  # halves of surrogate pairs are a ValueError too
    return tuple(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
