"""Files of text: regular ones, plain or gzipped, decoded line by line.

Memory: one line, of at most `MAX_LINE_BYTES`.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import open_regular

MAX_LINE_BYTES = 16 * 2**20
HEAD_BYTES = 64 * 1024
"""So much of a file is looked at to learn what it is."""

_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as CSV"),
    (b"BZh", "compressed by bzip2: unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "compressed by xz: unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard: unpack it with unzstd"),
    (b"{\\rtf", "a rich text document: save it as plain text"),
    (b"%PDF-", "a PDF: save its text as a text file"),
    (b"SQLite format 3\0", "an SQLite database: export the table as CSV"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    (b"<!doctype html", "a web page: the address that it came from gives no file, so look at it in a browser"),
    (b"<html", "a web page: the address that it came from gives no file, so look at it in a browser"),
    (b"<?xml", "XML: save it as CSV or JSON"),
)


def check_encoding(name: str) -> str:
    """``name``, if Python knows such a text encoding.

    Raises:
        UserError: if not.
    """
    try:
        if codecs.lookup(name)._is_text_encoding:
            return name
    except (LookupError, ValueError):
        pass
    raise UserError(f"Unknown text encoding {name!r}; name one that Python knows, such as 'utf-8' or 'latin-1'.")


@contextmanager
def open_bytes(path: str | os.PathLike[str], what: str) -> Iterator[IO[bytes]]:
    """The bytes of a regular file, unpacked where its content says that it is gzipped.

    What goes wrong while it is read in the body becomes a `UserError` too.

    Args:
        path: of the file.
        what: what messages call it, with its name: ``"list 'a.csv'"``.

    Raises:
        UserError: for a file that is missing, no regular one, not readable, or no whole gzip file.
    """
    try:
        with open_regular(path) as raw:
            is_gzipped = raw.peek(2)[:2] == _GZIP or os.fspath(path).lower().endswith(".gz")
            if not is_gzipped:
                yield raw
                return
            with gzip.open(raw, "rb") as unpacked:
                yield cast("IO[bytes]", unpacked)
    except ItemError as error:
        raise UserError(f"The {what} cannot be read ({error.detail}): check the path.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"The {what} is not a whole gzip file ({error}): fetch or pack it anew.") from error
    except OSError as error:
        raise UserError(f"The {what} cannot be read ({error.strerror or error}): check the path.") from error


def read_small(path: str | os.PathLike[str], what: str, max_bytes: int) -> str:
    """The whole text of a small file in UTF-8 (or in what its byte order mark says).

    Memory: the file; its size is looked at before.

    Args:
        path: of the file.
        what: what messages call it, with its name.
        max_bytes: larger files are refused.

    Raises:
        UserError: for a file that is missing, no regular one, not readable, larger than ``max_bytes``, or no text.
    """
    with open_bytes(path, what) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UserError(
            f"The {what} has more than {max_bytes:,} bytes, the most that tai-engine reads: is it the right file?"
        )
    encoding = encoding_of(data[:HEAD_BYTES], what, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise UserError(f"The {what} is not UTF-8 in line {line}: save it as UTF-8.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"Line {line} of the {what} holds zero bytes, as binary files do: save it as UTF-8 text.")
    return text


def read_words(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The lines of a list of words, without blanks around them; empty ones are left out.

    Raises:
        UserError: as `read_small`; a list may have 16 MB.
    """
    lines = read_small(path, f"list of words '{os.fspath(path)}'", 16 << 20).splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def encoding_of(head: bytes, what: str, default: str) -> str:
    """The encoding of a text that begins with these bytes: that of its byte order mark, else the default.

    Raises:
        UserError: for bytes that begin as a known kind of file that is no text; it says how to make one.
    """
    begins = head[:512].removeprefix(codecs.BOM_UTF8).lstrip()
    begins = begins.lower() if begins[:1] in (b"<", b"v") else begins
    for magic, kind in _NO_TEXT:
        if begins.startswith(magic):
            raise UserError(f"The {what} is {kind}.")
    if codecs.lookup(default).name == "utf-8":
        return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    return default


def numbered_lines(file: IO[bytes], encoding: str, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a text with their line ends, numbered from 1; a lone carriage return ends a line too.

    Args:
        file: the bytes, from the beginning.
        encoding: of the text.
        what: what messages call the file, with its name.

    Raises:
        UserError: for text in another encoding, a line of more than `MAX_LINE_BYTES`, or zero bytes; names the line.
    """
    number = 0
    try:
        for number, line in enumerate(_lines(file, encoding), 1):
            if len(line) >= MAX_LINE_BYTES:
                raise UserError(
                    f"Line {number} of the {what} is longer than 16 MiB, the most that tai-engine reads as one line: "
                    "is it a file of lines?"
                )
            if "\0" in line:
                raise UserError(
                    f"Line {number} of the {what} holds zero bytes, as binary and UTF-16 files do: save it as UTF-8, "
                    "or name its encoding with --encoding."
                )
            yield number, line
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(
            f"Line {number + 1} of the {what} is not {encoding.removesuffix('-sig').upper()} ({reason}): save the file "
            "as UTF-8, or name its encoding with --encoding."
        ) from error


def _lines(file: IO[bytes], encoding: str) -> Iterator[str]:
    if encoding.startswith("utf-8"):
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if b"\n" in head or b"\r" not in head[:-1]:
            # Lines are decoded one by one, so that an error can name its line.
            while line := file.readline(MAX_LINE_BYTES):
                yield line.decode(encoding)
                encoding = "utf-8"  # the mark is at the beginning alone
            return
    text = io.TextIOWrapper(file, encoding, newline="")
    while characters := text.readline(MAX_LINE_BYTES):
        yield characters


def in_utf8(file: IO[bytes], encoding: str) -> IO[bytes]:
    """The bytes of a text in UTF-8 without a byte order mark, whatever it was written in.

    Args:
        file: the bytes, from the beginning.
        encoding: of the text.
    """
    if encoding == "utf-8":
        return file
    if encoding == "utf-8-sig":
        file.read(len(codecs.BOM_UTF8))
        return file
    return cast("IO[bytes]", codecs.EncodedFile(file, "utf-8", encoding))
