"""Lists of names in which more than the name stands on a line: they would be tags such as ``n01440764 tench``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tai_engine.errors import UserError

_NUMBERED = re.compile(r"\s*(\d{1,9})(?:[.):]?\s+|[.):]\s*)\S")
_EVERY_LINE = (
    (re.compile(r"\s*n\d{8}[\s:,]+\S"), "begins with a number of WordNet"),
    (re.compile(r"\s*[-*•]\s+\S"), "begins with the mark of a list"),
    (re.compile(r"""\s*\[?\s*(["'])(?!\1).+\1\s*[\],]*\s*\Z"""), "stands in quotation marks"),
    (re.compile(r".*\w\s*\|\s*\w"), "holds a '|', as tables do"),
)


def refuse_lists_of_more(lines: Sequence[str], where: str) -> None:
    """Refuse what is a numbered or marked list, a table, or a list on one line.

    One line proves nothing but by its commas, and a name may have any of these forms where not all lines have it.

    Args:
        lines: of a list of one name a line, without blank ones and comments.
        where: what messages call the file, with its name.

    Raises:
        UserError: that says what stands there.
    """
    subject, what = "Every line", None
    if len(lines) == 1 and "," in lines[0].partition(": ")[0]:
        subject, what = "The only line", "has commas in it"
    elif len(lines) > 1 and _is_numbered(lines):
        what = "begins with a number"
    elif len(lines) > 1:
        what = next((what for form, what in _EVERY_LINE if all(map(form.match, lines))), None)
    if what is not None:
        raise UserError(
            f"{subject} of the {where} {what} ({lines[0].strip()[:60]!r}), which would be part of the tag: write one "
            'name a line and nothing else, or, if it belongs to the names, JSON such as ["tench", "goldfish"].'
        )


def _is_numbered(lines: Sequence[str]) -> bool:
    """Whether every line begins with a number, and the numbers grow."""
    found = [_NUMBERED.match(line) for line in lines]
    numbers = [int(one[1]) for one in found if one is not None]
    return len(numbers) == len(lines) and all(a < b for a, b in pairwise(numbers))
