"""A name in its three spellings: as the user wrote it, as prompts want it, and as names are compared.

What the user wrote is what tags are called, in every output. Taggers' vocabularies write ``long_hair`` for two words,
and ``0_0`` or ``>_<`` for a face, which must not fall apart.
"""

from __future__ import annotations

import re
import unicodedata

# Two letters in a row, or one of a script in which a letter may be a word.
_HOLDS_A_WORD = re.compile(r"[^\W\d_]{2}|[^\W\d_a-zA-Z]")


def prompt_words(name: str) -> str:
    """A name as prompts want it: underscores become blanks, runs of blanks one, letters are composed (NFC).

    Words of signs, digits and single Latin letters (``>_<``, ``3_3``, ``o_o``) keep their underscores.
    """
    words = name.split()
    if "_" in name:
        parts = (word.replace("_", " ") if _HOLDS_A_WORD.search(word) else word for word in words)
        words = " ".join(parts).split()
    return unicodedata.normalize("NFC", " ".join(words))


def tidy_words(text: str) -> str:
    """Words as sentences have them: all underscores become blanks, runs of blanks one, letters are composed (NFC)."""
    return unicodedata.normalize("NFC", " ".join(text.replace("_", " ").split()))


def comparable_name(name: str) -> str:
    """What two names have in common that only differ in case, underscores, blanks or how accents are composed."""
    return unicodedata.normalize("NFC", tidy_words(name).casefold())
