"""JSON of strangers: whatever stands in it, a value or a ValueError; and one place where it is parsed."""

import ast
import os

import pytest

from project_sources import SOURCES, is_within
from tai_engine.errors import ItemError
from tai_engine.json_documents import parse_json, read_json

# The two doors: small documents, and users' tables, which may be large and whose mistakes are told by line and column.
DOORS = {"tai_engine.json_documents", "tai_engine.tables.json_values"}


def test_text_and_bytes_are_parsed():
    assert parse_json('{"a": [1, 2.5, "ä", null, true]}') == {"a": [1, 2.5, "ä", None, True]}
    assert parse_json('{"ä": 1}'.encode()) == {"ä": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ("NaN", "no number"),
        ("-Infinity", "no number"),
        ("[1e999]", "too large"),
        ("1" * 6_000, "digits"),
        (b"\xff\xfe{\x00", "utf-8"),
        (b"", "Expecting value"),
        ("{'a': 1}", "double quotes"),
        ('{"a": [{"b": 1, "c": 2, "b": 1}]}', "it has 'b' twice in one object"),
    ],
)
def test_what_is_no_json_is_a_value_error(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_files_are_regular_and_small(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[1, 2]")
    assert read_json(tmp_path / "a.json", 6) == [1, 2]
    with pytest.raises(ItemError, match="too-large: 6 bytes, 5 are allowed"):
        read_json(tmp_path / "a.json", 5)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ItemError, match="not-a-file"):
        read_json(tmp_path / "pipe.json", 5)


def test_nothing_else_in_the_engine_parses_json():
    def parses(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "json"
            and node.attr in ("load", "loads", "JSONDecoder")
        )

    users = {
        module
        for module, path in SOURCES.items()
        if is_within(module, "tai_engine") and any(map(parses, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert users == DOORS
