"""Sentence files: plain text, JSONL, CSV, TSV, Parquet and COCO's captions JSON, read one sentence at a time.

Any of them but Parquet may be gzipped. No file is ever held whole: a line, a JSON element or a block of Parquet rows is
in memory at a time, at most 16 MiB each.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tai_engine.errors import UserError, unknown_choice
from tai_engine.sentences.json_stream import json_elements

MAX_RECORD_CHARACTERS = 1 << 24
_PARQUET_ROWS = 4096

# In the order of preference; compared without case.
TEXT_COLUMNS = ("caption", "text", "sentence", "captions", "sentences", "raw", "description")
IMAGE_COLUMNS = ("image_id", "imageid", "image", "image_name", "file_name", "filename", "image_path")

FORMATS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".json": "json",
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a file.

    Attributes:
        id: its number among all sentences of the files, from 1: unique, and the same at every reading.
        text: without line breaks or doubled blanks; empty where the file has none.
        image_id: the image that it describes, or None.
    """

    id: str
    text: str
    image_id: str | None = None


@dataclass(frozen=True)
class SentenceOptions:
    """How to read a sentence file.

    Attributes:
        format: one of the values of ``FORMATS``; None goes by the name's ending.
        text_column: column or key of the sentence; None takes the first of ``TEXT_COLUMNS`` that is there.
        image_column: column or key of the image's id; None takes the first of ``IMAGE_COLUMNS``, if any.
        encoding: of text files; a byte order mark of UTF-8 is skipped.
    """

    format: str | None = None
    text_column: str | None = None
    image_column: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS.values():
            raise unknown_choice("sentence file format", self.format, set(FORMATS.values()))
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise UserError(
                f"Unknown text encoding {self.encoding!r}; name one that Python knows, such as 'utf-8' or 'latin-1'."
            ) from None


def read_sentences(
    paths: str | Path | Sequence[str | Path], options: SentenceOptions | None = None
) -> Iterator[Sentence]:
    """The sentences of one or several files, in order.

    A record without text gives a sentence with empty text, so that the caller can count it; a record whose text is a
    list (several captions of an image) gives one sentence each.

    Args:
        paths: local files; sentences of several files are numbered on.
        options: how to read them; all files are read alike.

    Raises:
        UserError: for a file that is missing, empty, of an unknown kind, in another encoding, damaged, or without a
            column of sentences; it names the file and, where there is one, the line.
    """
    options = options or SentenceOptions()
    number = 0
    for path in [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]:
        before = number
        for text, image_id in _read_file(path, options):
            number += 1
            if not text.isascii():  # JSON can spell halves of surrogate pairs, which no UTF-8 file can hold
                text = text.encode("utf-8", "replace").decode("utf-8")
            yield Sentence(str(number), " ".join(text.split()), image_id)
        if number == before:
            raise UserError(f"The sentence file {path} is empty; give a file with at least one sentence.")


def _format_of(path: Path, options: SentenceOptions) -> tuple[str, bool]:
    """The format's name, and whether the file is gzipped."""
    suffixes = [s.lower() for s in path.suffixes]
    gzipped = bool(suffixes) and suffixes[-1] == ".gz"
    if gzipped:
        suffixes.pop()
    name = options.format or FORMATS.get(suffixes[-1] if suffixes else "")
    if name is None:
        raise UserError(
            f"The kind of the sentence file {path} is not known from its name; use one of the endings "
            f"{', '.join(sorted(FORMATS))} (also followed by .gz), or name the format: "
            f"{', '.join(sorted(set(FORMATS.values())))}."
        )
    if gzipped and name == "parquet":
        raise UserError(
            f"{path} is a gzipped Parquet file, which cannot be read in parts; unpack it with gunzip first."
        )
    return name, gzipped


def _read_file(path: Path, options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    name, gzipped = _format_of(path, options)
    if not path.exists():
        raise UserError(f"The sentence file {path} does not exist; check the path.")
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a sentence file; name the file in it.")
    if name == "parquet":
        yield from _read_parquet(path, options)
        return
    with _open_text(path, gzipped, options.encoding) as file:
        yield from _TEXT_READERS[name](path, file, options)


@contextmanager
def _open_text(path: Path, gzipped: bool, encoding: str) -> Iterator[IO[str]]:
    """The file as text; whatever goes wrong while it is read becomes one sentence for the user."""
    name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        with (
            gzip.open(path, "rb") if gzipped else path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding=name, newline="") as file,
        ):
            yield file
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(
            f"The sentence file {path} is not valid {encoding} ({reason}); save it as UTF-8 or name its encoding."
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"The sentence file {path} is not a whole gzip file ({error}); fetch or pack it anew."
        ) from None
    except OSError as error:
        raise UserError(f"The sentence file {path} cannot be read ({error.strerror or error}).") from None


def _lines(path: Path, file: IO[str]) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1."""
    number = 0
    while line := file.readline(MAX_RECORD_CHARACTERS):
        number += 1
        if len(line) == MAX_RECORD_CHARACTERS:
            raise UserError(
                f"Line {number} of {path} has {MAX_RECORD_CHARACTERS} characters or more: no sentence file."
            )
        if "\0" in line:
            raise UserError(
                f"Line {number} of {path} holds zero bytes, as binary and UTF-16 files do; save it as UTF-8 or name "
                "its encoding."
            )
        yield number, line


def _read_text(path: Path, file: IO[str], _options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    return ((line, None) for _, line in _lines(path, file))


def _read_jsonl(path: Path, file: IO[str], options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    def records() -> Iterator[tuple[str, Any]]:
        for number, line in _lines(path, file):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"Line {number} of {path} is not JSON ({error.msg} at column {error.colno}); JSONL has one object "
                    "a line."
                ) from None

    return _from_records(path, records(), options)


def _read_json(path: Path, file: IO[str], options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    elements = json_elements(path, file)
    return _from_records(path, ((f"entry {n}", e) for n, e in enumerate(elements, 1)), options)


def _from_records(
    path: Path, records: Iterable[tuple[str, Any]], options: SentenceOptions
) -> Iterator[tuple[str, str | None]]:
    """Sentences of JSON values: strings, or objects whose first one settles which keys are read."""
    text_key: str | None = None
    image_key: str | None = None
    for place, record in records:
        if isinstance(record, str):
            yield record, None
            continue
        if not isinstance(record, dict):
            raise UserError(f"The {place} of {path} is neither a string nor an object with a sentence.")
        if text_key is None:
            text_key, image_key = _choose_columns(path, list(record), options)
        value = record.get(text_key)
        image = None if image_key is None else record.get(image_key)
        yield from _texts(path, place, value, None if image is None else str(image))


def _texts(path: Path, place: str, value: Any, image_id: str | None) -> Iterator[tuple[str, str | None]]:
    if value is None:
        yield "", image_id
    elif isinstance(value, str):
        yield value, image_id
    elif isinstance(value, list) and all(isinstance(v, str) for v in value):
        for text in value:
            yield text, image_id
    else:
        raise UserError(f"The sentence in {place} of {path} is {value!r:.60}, expected text or a list of texts.")


def _choose_columns(path: Path, columns: list[str], options: SentenceOptions) -> tuple[str, str | None]:
    """The names of the text column and of the image column (None where there is none)."""

    def first(wanted: Sequence[str]) -> str | None:
        by_lower = {column.lower(): column for column in reversed(columns)}
        return next((by_lower[w] for w in wanted if w in by_lower), None)

    for given in (options.text_column, options.image_column):
        if given is not None and given not in columns:
            raise unknown_choice(f"column in {path}", given, columns)
    text = options.text_column or first(TEXT_COLUMNS)
    if text is None:
        raise UserError(
            f"{path} has no column of sentences: it has {', '.join(map(repr, columns[:20])) or 'none'}, expected one "
            f"of {', '.join(TEXT_COLUMNS)}; name the column that holds them."
        )
    return text, options.image_column or first([c for c in IMAGE_COLUMNS if c != text.lower()])


def _read_delimited(
    path: Path, file: IO[str], options: SentenceOptions, delimiter: str
) -> Iterator[tuple[str, str | None]]:
    reader = csv.reader((line for _, line in _lines(path, file)), delimiter=delimiter)
    try:
        header = [column.strip() for column in next(reader, [])]
        if not header:
            return
        text_column, image_column = _choose_columns(path, header, options)
        text_index = header.index(text_column)
        image_index = None if image_column is None else header.index(image_column)
        for row in reader:
            if not row:
                continue
            text = row[text_index] if text_index < len(row) else ""
            image = row[image_index] if image_index is not None and image_index < len(row) else None
            yield text, image or None
    except csv.Error as error:
        raise UserError(f"Line {reader.line_num} of {path} is not valid CSV ({error}).") from None


def _read_parquet(path: Path, options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            text_column, image_column = _choose_columns(path, file.schema_arrow.names, options)
            columns = [text_column] if image_column is None else [text_column, image_column]
            row = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                values = batch.column(text_column).to_pylist()
                images = [None] * len(values) if image_column is None else batch.column(image_column).to_pylist()
                for value, image in zip(values, images, strict=True):
                    row += 1
                    yield from _texts(path, f"row {row}", value, None if image is None else str(image))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"The Parquet file {path} cannot be read ({str(error).splitlines()[0]}).") from None


_TEXT_READERS: dict[str, Callable[[Path, IO[str], SentenceOptions], Iterator[tuple[str, str | None]]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": lambda path, file, options: _read_delimited(path, file, options, ","),
    "tsv": lambda path, file, options: _read_delimited(path, file, options, "\t"),
}
