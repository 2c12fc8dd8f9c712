"""What goes wrong: the one exception that a user is meant to read, and the one for an input that cannot be had."""

import difflib
from collections.abc import Iterable

MANY = 12
"""So many names are listed in full."""

REASONS = {
    "missing": "there is no such file",
    "not-a-file": "a folder, a pipe or another thing that is no file",
    "no-permission": "the file may not be read",
    "unreadable": "the device or file system reports an error",
    "empty": "the file has no bytes",
    "unknown-format": "no picture, or of a format that is not known",
    "unsupported": "a kind of picture that cannot be read here",
    "truncated": "the file ends too early",
    "broken": "the contents are damaged",
    "too-large": "more pixels or bytes than allowed",
    "too-narrow": "one side is too many times the other",
    "no-memory": "not enough memory to decode it",
    "crashed": "decoding it ended the process that did it",
    "timeout": "decoding it took longer than allowed",
}
"""What an input can fail with. The words are stable: people count by them."""


class UserError(ValueError):
    """A mistake that the user can mend: bad input, a missing file, options that do not fit.

    The message is one sentence that says what is wrong with which file or option, what is allowed, and what to do.
    The command line prints it without a traceback and exits with status 2.
    """


def unknown_choice(what: str, given: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones, close matches first.

    Args:
        what: the kind of thing, e.g. ``"vocabulary"``.
        given: what the user wrote.
        allowed: every name that would have been accepted.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=5, cutoff=0.5)
    if close and len(names) > MANY:
        listed, rest = ", ".join(map(repr, close)), len(names) - len(close)
        return UserError(f"Unknown {what} {given!r}; did you mean {listed}? ({rest} more exist)")
    hint = f"did you mean {close[0]!r}? Choose" if close else "choose"
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return UserError(f"Unknown {what} {given!r}; {hint} one of {', '.join(map(repr, names[:MANY]))}{more}.")


class ItemError(Exception):
    """One input that cannot be had: it is entered as failed, and the run goes on.

    Attributes:
        reason: a category, one of `REASONS`.
        detail: what exactly, in words.

    Raises:
        ValueError: for another reason.
    """

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"reason is {reason!r}, expected one of {', '.join(REASONS)}")
        super().__init__(reason, detail)  # both, so that the exception can be pickled
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def reason_of(error: BaseException) -> str:
    """What a foreign error says, in one line for the middle of a sentence."""
    text = (error.detail if isinstance(error, ItemError) else str(error)) or type(error).__name__
    first = text.strip().splitlines()[0].rstrip(".:")
    return first if len(first) <= 160 else first[:157] + "..."
