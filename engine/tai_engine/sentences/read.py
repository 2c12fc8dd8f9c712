"""Sentences of files, one at a time, with the images that they describe.

Memory: that of a `Table`: no file is ever held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tai_engine.errors import UserError
from tai_engine.tables import LINE_COLUMN, Table, TableOptions, read_list, short_repr

# In the order of preference; compared without case.
TEXT_COLUMNS = ("caption", "text", "sentence", "captions", "sentences", "raw", "description", "comment", "prompt")
SPLIT_FILE_ARRAY = "images"
IMAGE_COLUMNS = ("image_id", "imageid", "image", "image_name", "file_name", "filename", "image_path")


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
        text_column: column or key of the sentence; None takes the first of ``TEXT_COLUMNS`` that is there.
        image_column: column or key of the image's id; None takes the first of ``IMAGE_COLUMNS``, if any.
        table: what the user says of the file itself.
    """

    text_column: str | None = None
    image_column: str | None = None
    table: TableOptions = field(default_factory=TableOptions)


def read_sentences(
    paths: str | Path | Sequence[str | Path], options: SentenceOptions | None = None
) -> Iterator[Sentence]:
    """The sentences of one or several files, in order.

    A record without text gives a sentence with empty text, so that the caller can count it; a record whose text is a
    list (several captions of an image) gives one sentence each. Of the split files of Flickr8k, Flickr30k and COCO
    (Karpathy's ``dataset_....json``) all sentences are read, whatever their split.

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
        is_empty = True
        for text, image_id in _read_file(path, options):
            number += 1
            is_empty = is_empty and not text.strip()
            if not text.isascii():  # JSON can spell halves of surrogate pairs, which no UTF-8 file can hold
                text = text.encode("utf-8", "replace").decode("utf-8")
            yield Sentence(str(number), " ".join(text.split()), image_id)
        if is_empty:
            raise UserError(f"The sentence file '{path}' is empty; give a file with at least one sentence.")


def _read_file(path: Path, options: SentenceOptions) -> Iterator[tuple[str, str | None]]:
    named = [column for column in (options.text_column, options.image_column) if column is not None]
    table = Table(path, (*TEXT_COLUMNS, *IMAGE_COLUMNS, *named), options.table, kind="sentence file", short_rows=True)
    if table.shape.format == "json" and _has_sentences_by_image(table):
        table.take_array(SPLIT_FILE_ARRAY)
    if table.shape.format == "text" and named:
        raise UserError(
            f"The {table.what} is read as text with a sentence a line, which has no column {named[0]!r}: say what it "
            "is with --format."
        )
    text_column, image_column = _choose_columns(table, options)
    columns = [column for column in (LINE_COLUMN, text_column, image_column) if column is not None]
    for place, values in table.rows(columns):
        if LINE_COLUMN in values:
            yield values[LINE_COLUMN], None
            continue
        image = None if image_column is None else values.get(image_column)
        yield from _texts(table, place, values.get(text_column), None if image in (None, "") else _image_id(image))


def _has_sentences_by_image(table: Table) -> bool:
    """Whether its first image has sentences, as in Karpathy's ``dataset_flickr8k.json``; COCO's images have none."""
    with closing(table.elements(frozenset({SPLIT_FILE_ARRAY}))) as images:
        first = next(images, (SPLIT_FILE_ARRAY, None))[1]
    return isinstance(first, dict) and isinstance(first.get("sentences"), list)


def _image_id(value: Any) -> str:
    return value if isinstance(value, str) else short_repr(value) if isinstance(value, dict | list) else str(value)


def _texts(table: Table, place: str, value: Any, image_id: str | None) -> Iterator[tuple[str, str | None]]:
    if value is None:
        yield "", image_id
    elif isinstance(value, str):
        for text in _listed(value) if table.shape.format == "csv" and value.startswith("[") else (value,):
            yield text, image_id
    elif isinstance(value, list) and all(isinstance(_text_of(one), str) for one in value):
        for one in value:
            yield _text_of(one), image_id
    else:
        raise UserError(
            f"The sentence in {place} of the {table.what} is {short_repr(value)}, expected text or a list of texts."
        )


def _text_of(value: Any) -> Any:
    """The text of an object in a list of sentences, ``{"raw": "A dog."}``; any other value as it is."""
    if not isinstance(value, dict):
        return value
    return next((value[column] for column in TEXT_COLUMNS if column in value), None)


def _listed(field: str) -> list[str]:
    """The texts of a list that JSON or Python wrote into a field of CSV; any other field as it is."""
    value = read_list(field)
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else [field]


def _choose_columns(table: Table, options: SentenceOptions) -> tuple[str, str | None]:
    """The names of the text column and of the image column (None where there is none).

    What has no columns at all is lines of text, or empty; of Parquet it may be columns that are not read.
    """
    if not table.columns and table.shape.format != "parquet":
        return LINE_COLUMN, None
    text = table.find(TEXT_COLUMNS) if options.text_column is None else table.require(options.text_column)
    if text is None:
        raise UserError(
            f"The {table.what} has no column of sentences: it has {table.listed_columns()}, expected one of "
            f"{', '.join(TEXT_COLUMNS)}; name the column that holds them with --column"
            + (", or say --no-header if the first line is a row already." if table.shape.format == "csv" else ".")
        )
    if options.image_column is not None:
        return text, table.require(options.image_column)
    return text, table.find([c for c in IMAGE_COLUMNS if c != text.lower()])
