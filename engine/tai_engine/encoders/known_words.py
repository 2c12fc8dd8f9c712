"""Words that a text tower knows, listed beside its weights.

Byte pairs spell any word, also one that a tower trained on few texts has not read: its vector is then that of nothing,
or of another word. A model's folder may therefore hold ``known_words.txt``: UTF-8, a word in lower case a line. The
embedded model's does; how it was made is in `tai_benchmarks.photo_clip.taught_words`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import check_size, open_regular

KNOWN_WORDS = "known_words.txt"
_MOST_BYTES = 16 << 20
_WORD = re.compile(r"\w+")


def words_of_name(name: str) -> list[str]:
    """The words of a name in lower case; underscores and hyphens part them."""
    return _WORD.findall(name.lower().replace("_", " "))


def read_known_words(folder: Path | None) -> frozenset[str] | None:
    """What a model's folder lists; None without a folder or a list. Memory: the list twice, of 16 MB at most.

    Raises:
        UserError: for a list that cannot be read, is larger, or is not UTF-8.
    """
    if folder is None:
        return None
    path = folder / KNOWN_WORDS
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
        check_size(len(data), _MOST_BYTES)
        return frozenset(data.decode("utf-8").split())
    except ItemError as error:
        if error.reason == "missing":
            return None
        raise UserError(
            f"The model's list of words {str(path)!r} cannot be read ({error.detail}): mend or remove it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"The model's list of words {str(path)!r} is not UTF-8: mend or remove it.") from error


def names_with_others(names: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Those names that have a word which is not known, in order; a name without a word is not judged."""
    return tuple(name for name in names if any(word not in known for word in words_of_name(name)))
