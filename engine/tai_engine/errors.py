"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable

MANY = 12
"""So many names are listed in full."""


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
        reason: a category of `tai_engine.decoding.REASONS`.
        detail: what exactly, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the exception can be pickled
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
