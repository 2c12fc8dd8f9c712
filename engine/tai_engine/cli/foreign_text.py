"""Text that others wrote, on a terminal: whatever would steer it, or turn its letters around, is shown instead.

File names, members of archives and values of tables may hold escape codes (which clear the screen, change the title or
type commands into some terminals), line breaks (which fake a line of ours) and marks that reverse the order of letters.
Everything that commands say passes through here once; files and JSON, which machines read, keep every name as it is.
"""

from __future__ import annotations

import re

# Control characters, line and paragraph separators, halves of surrogate pairs, marks of direction and other letters
# without a shape; but for the joiners that emoji and Persian are written with, and soft hyphens.
_SHOWN_AS_CODES = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(text: str) -> str:
    """The text with every character that does not stand for itself as an escape: ``\\n``, ``\\x1b``, ``\\u202e``."""
    return _SHOWN_AS_CODES.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _NAMES:
        return _NAMES[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
