"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable


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
    if close:
        rest = len(names) - len(close)
        more = f" ({rest} more exist)" if rest else ""
        return UserError(f"Unknown {what} {given!r}; did you mean {', '.join(map(repr, close))}?{more}")
    shown = ", ".join(map(repr, names[:30])) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    return UserError(f"Unknown {what} {given!r}; choose one of {shown}.")
