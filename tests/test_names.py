"""A name means one thing: no two files and no two classes share one."""

import ast
from collections import Counter

from project_sources import ROOT, SOURCES

# A command's own file is thin and has the name of what it commands; these have theirs from Python and pytest.
CONVENTIONAL_NAMES = {"__init__.py", "conftest.py"}


def test_every_file_has_a_name_of_its_own():
    files = [path for path in SOURCES.values() if path.parent.name != "cli"]
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "cli"]
    for paths in (files, tests):
        names = Counter(path.name for path in paths if path.name not in CONVENTIONAL_NAMES)
        assert [name for name, count in names.items() if count > 1] == []


def test_every_class_has_a_name_of_its_own():
    names = Counter(
        node.name
        for path in SOURCES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert sorted(name for name, count in names.items() if count > 1) == []
