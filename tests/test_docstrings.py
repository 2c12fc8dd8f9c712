"""Docstrings are written alike: a result is named, not "returned", and other names stand in plain backticks."""

import ast
import re

import pytest

from project_sources import SOURCES

ROLE = re.compile(r":[a-z]+:`")
RETURN = re.compile(r"(Return|Returns|Yield|Yields)\b")


def docstrings(tree: ast.AST) -> list[str]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, holders)]


@pytest.mark.parametrize("module", SOURCES)
def test_docstrings_name_what_comes_out(module: str):
    found = docstrings(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    assert not [text for text in found if RETURN.match(text) or ROLE.search(text)]
