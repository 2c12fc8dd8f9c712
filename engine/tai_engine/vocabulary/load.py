"""Vocabularies from files, in the forms that people have.

TOML says everything::

    name = "pets"
    templates = ["a photo of a {}, a pet."]     # optional
    other_names = ["hot dog"]                   # optional: no class, though a class's word is in it

    [[class]]
    name = "dog"
    synonyms = ["puppy", "guide dog"]           # optional

Text has one name a line, synonyms after a colon and a blank; lines that begin with ``#`` are comments::

    dog: puppy, hound
    cat

A colon that no blank follows belongs to the name (``rating:safe``). Tables (CSV, TSV, JSONL, Parquet) have a column of
names, as a tagger's ``selected_tags.csv``; JSON is a list of names, a mapping of numbers to names, or holds COCO's
``categories`` or, as the ``config.json`` of a model on Hugging Face, ``id2label``.

Memory: the file, at most `MAX_BYTES`, and what its at most `MAX_CLASSES` classes take.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from tai_engine.errors import UserError, unknown_choice
from tai_engine.regular_files import printable
from tai_engine.tables import LINE_COLUMN, Table, TableOptions, parse_json, read_small, short_repr
from tai_engine.vocabulary.classes import Vocabulary, VocabularyClass, merged
from tai_engine.vocabulary.line_forms import refuse_lists_of_more

BUILT_IN_VOCABULARIES = ("coco80", "everyday", "lvis1203", "nuswide81", "voc20")
MAX_BYTES = 16 * 2**20
MAX_CLASSES = 1_000_000
_OTHER_KINDS = {
    ".yaml": "YAML", ".yml": "YAML", ".xml": "XML", ".html": "HTML", ".htm": "HTML", ".md": "Markdown", ".py": "Python",
    ".pbtxt": "a label map of TensorFlow", ".ini": "a file of settings", ".cfg": "a file of settings",
}  # fmt: skip
# In the order of preference; compared without case.
NAME_COLUMNS = ("name", "tag", "label", "class", "class_name", "category", "display_name", "tag_name", "keyword")
SYNONYM_COLUMNS = ("synonyms", "aliases")
_NO_NAME = re.compile(r"LABEL_\d+")

_log = logging.getLogger(__name__)


def load_vocabulary(
    spec: str | Path,
    *,
    merge_duplicates: bool = False,
    column: str | None = None,
    table: TableOptions | None = None,
) -> Vocabulary:
    """A built-in vocabulary by its name, or one's own from a file.

    Args:
        spec: one of `BUILT_IN_VOCABULARIES`, or the path of a file (see the module). A file that is called like a
            built-in one is reached by a path with a folder, such as ``./coco80``.
        merge_duplicates: take classes of one name together, and leave every other word to the first that has it.
        column: of a table, the one that holds the names; by default the first of `NAME_COLUMNS` that is there.
        table: what the user says of a table.

    Raises:
        UserError: for an unknown name, a missing, unreadable or too large file, text that is not UTF-8, TOML or JSON
            with a mistake, a table without a column of names, and whatever `Vocabulary` refuses.
    """
    if str(spec) in BUILT_IN_VOCABULARIES:
        resource = files("tai_engine") / "vocabularies" / f"{spec}.toml"
        return _parse_toml(resource.read_text(encoding="utf-8"), str(spec), f"built-in vocabulary {spec!r}")
    path = Path(spec)
    if not path.exists():
        if len(path.parts) > 1 or path.suffix:
            raise UserError(
                f"There is no vocabulary file '{printable(spec)}': check the path, or name a built-in vocabulary "
                f"({', '.join(BUILT_IN_VOCABULARIES)})."
            )
        unknown = unknown_choice("vocabulary", str(spec), BUILT_IN_VOCABULARIES)
        raise UserError(f"{str(unknown).rstrip('.?')}, or give the path of a TOML or text file.")
    where = f"vocabulary file '{printable(path)}'"
    try:
        return _load(path, where, merge_duplicates, column, table)
    except UserError as error:
        if printable(path) in str(error):
            raise
        raise UserError(f"In the {where}: {error}") from error


def _load(path: Path, where: str, merge_duplicates: bool, column: str | None, table: TableOptions | None) -> Vocabulary:
    if table is None and column is None and path.suffix.lower() in (".toml", ".json"):
        text = read_small(path, where, MAX_BYTES)
        if path.suffix.lower() == ".toml":
            return _parse_toml(text, path.stem, where, merge_duplicates)
        return _vocabulary(path.stem, _parse_json(text, where), merge_duplicates, where)
    if table is None and (kind := _OTHER_KINDS.get(path.suffix.lower())):
        raise UserError(
            f"The {where} is {kind} by its name, of which lines would be taken for names: save the names one a line as "
            ".txt, or as JSON."
        )
    known = (*NAME_COLUMNS, *SYNONYM_COLUMNS, *([column] if column else ()))
    rows = Table(path, known, table, kind="vocabulary file", short_rows=True, default_format="text")
    if rows.shape.format == "json":
        return _vocabulary(path.stem, _parse_json(read_small(path, where, MAX_BYTES), where), merge_duplicates, where)
    if rows.shape.format != "text" and not _is_bare(rows, column):
        return _vocabulary(path.stem, _parse_table(rows, column), merge_duplicates, where)
    text = read_small(path, where, MAX_BYTES)
    if any(line.strip() == "[[class]]" for line in itertools.islice(io.StringIO(text), 10_000)):
        return _parse_toml(text, path.stem, where, merge_duplicates)
    refuse_lists_of_more([line for line in io.StringIO(text, newline=None) if _is_name(line)], where)
    return _vocabulary(path.stem, _parse_lines(text, where), merge_duplicates, where)


def _is_bare(rows: Table, column: str | None) -> bool:
    """Whether a CSV file is a list of names without a header."""
    return rows.shape.format == "csv" and column is None and len(rows.columns) < 2 and not rows.find(NAME_COLUMNS)


def _vocabulary(
    title: str, classes: Iterable[VocabularyClass], merge_duplicates: bool, where: str, **more: tuple[str, ...]
) -> Vocabulary:
    all_classes = tuple(itertools.islice(classes, MAX_CLASSES + 1))
    if len(all_classes) > MAX_CLASSES:
        raise UserError(f"The {where} has more than {MAX_CLASSES:,} classes, the most that tai-engine takes.")
    if merge_duplicates:
        merged_classes = merged(all_classes)
        if gone := len(all_classes) - len(merged_classes):
            _log.warning("%d classes of the %s were merged into others of the same name", gone, where)
        all_classes = merged_classes
    return Vocabulary(title, all_classes, **more)


def _is_name(line: str) -> bool:
    """Whether a line of text is neither blank nor a comment."""
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse_lines(text: str, where: str) -> Iterator[VocabularyClass]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not _is_name(line):
            continue
        if "\t" in line.strip():
            raise UserError(
                f"Line {number} of the {where} has a tab in it, as tables have: name the columns in a first line, one "
                f"of them {NAME_COLUMNS[0]!r}, or write one name a line."
            )
        name, _, rest = (line + " ").partition(": ")
        synonyms = rest.split(",") if rest.strip() else []
        yield VocabularyClass(name, tuple(synonyms))


def _parse_table(rows: Table, column: str | None) -> Iterator[VocabularyClass]:
    name_column = rows.find(NAME_COLUMNS) if column is None else rows.require(column)
    if name_column is None and not rows.columns and rows.shape.format != "parquet":  # lines of text in quotation marks
        name_column = LINE_COLUMN
    if name_column is None:
        raise UserError(
            f"The {rows.what} has no column of names: it has {rows.listed_columns()}, expected one of "
            f"{', '.join(NAME_COLUMNS)}; name the column that holds them with --vocabulary-column"
            + (
                ", or, if line 1 is a row already, write a line of names above it."
                if rows.shape.format == "csv"
                else "."
            )
        )
    synonym_column = rows.find(SYNONYM_COLUMNS) or SYNONYM_COLUMNS[0]
    for row in rows.rows((LINE_COLUMN, name_column, synonym_column)):
        what = f"in {row.place} of the {rows.what}"
        name = row.values.get(LINE_COLUMN, row.values.get(name_column, ""))
        synonyms = row.values.get(synonym_column, [])
        if isinstance(synonyms, str):
            synonyms = [word for word in synonyms.replace(";", ",").split(",") if word.strip()]
        yield VocabularyClass(_string(name, f"name {what}"), _strings(synonyms, f"synonyms {what}"))


def _parse_json(text: str, where: str) -> Iterator[VocabularyClass]:
    try:
        document = parse_json(text)
    except ValueError as error:
        raise UserError(f"The {where} is not valid JSON: {error}.") from None
    if isinstance(document, dict) and isinstance(document.get("categories"), list):
        document = document["categories"]
    if isinstance(document, dict) and isinstance(document.get("id2label"), dict):
        document = _names_of_model(document["id2label"], where)
    if isinstance(document, dict):
        document = _names_by_number(document)
    if not isinstance(document, list):
        raise UserError(
            f"The {where} holds no names: expected a list of names, a mapping of numbers to names, or objects with a "
            "'name'."
        )
    for number, entry in enumerate(document, 1):
        what = f"of class {number} of the {where}"
        if isinstance(entry, dict):
            synonyms = _strings(entry.get("synonyms", []), f"synonyms {what}")
            yield VocabularyClass(_string(entry.get("name", ""), f"name {what}"), synonyms)
        else:
            yield VocabularyClass(_string(entry, f"name {what}"))


def _names_of_model(names: dict[str, Any], where: str) -> dict[str, Any]:
    """The ``id2label`` of a model, by number.

    Raises:
        UserError: where a model's training has left the names out.
    """
    if names and all(isinstance(name, str) and _NO_NAME.fullmatch(name) for name in names.values()):
        raise UserError(
            f"The {where} calls its classes {short_repr(next(iter(names.values())))} and so on, which are no names: "
            "give a list of what they stand for."
        )
    return names


def _names_by_number(document: dict[str, Any]) -> list[Any] | None:
    """The names of ``{"0": "tench"}`` or ``{"tench": 0}``, in the order of the numbers."""
    if document and all(isinstance(value, int) for value in document.values()):
        return sorted(document, key=document.__getitem__)
    if all(key.isdecimal() and len(key) < 20 for key in document):
        return [document[key] for key in sorted(document, key=int)]
    return None


def _parse_toml(text: str, name: str, where: str, merge_duplicates: bool = False) -> Vocabulary:
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"The {where} is not valid TOML: it is nested too deep.") from None
    except ValueError as error:  # tomllib's own, and numbers of too many digits
        raise UserError(f"The {where} is not valid TOML: {error}.") from error
    _check_keys(document, ("name", "class", "templates", "other_names"), where)
    entries = document.get("class", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"In the {where} classes are tables: write [[class]] above each name.")
    classes = []
    for number, entry in enumerate(entries, 1):
        _check_keys(entry, ("name", "synonyms"), f"class {number} of the {where}")
        classes.append(
            VocabularyClass(
                _string(entry.get("name", ""), f"name of class {number} of the {where}"),
                _strings(entry.get("synonyms", []), f"synonyms of class {number} of the {where}"),
            )
        )
    title = _string(document.get("name", name), f"name of the {where}")
    templates, others = (
        _strings(document.get(key, []), f"{key.replace('_', ' ')} of the {where}")
        for key in ("templates", "other_names")
    )
    return _vocabulary(title, classes, merge_duplicates, where, templates=templates, other_names=others)


def _check_keys(table: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise unknown_choice(f"key in the {where}:", key, allowed)


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"The {what} is {short_repr(value)}; it must be text in quotation marks.")
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise UserError(f"The {what} are {short_repr(value)}; they must be a list of texts in quotation marks.")
    return tuple(value)
