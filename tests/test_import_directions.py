"""The way of the data is one-way: every module may import only what stands before it (see ARCHITECTURE.md)."""

import ast
from pathlib import Path

import pytest

from project_sources import PACKAGES, SOURCES, imported_when_loaded, is_within, project_imports

# Modules that anything in the engine may use.
BASE = {
    "tai_engine.addresses",
    "tai_engine.disk_cache",
    "tai_engine.unfinished",
    "tai_engine.errors",
    "tai_engine.files",
    "tai_engine.look_ahead",
    "tai_engine.processors",
    "tai_engine.json_documents",
    "tai_engine.picture_kinds",
    "tai_engine.redirects",
    "tai_engine.regular_files",
    "tai_engine.spaces",
}
# What a module or package may import of the project, beside BASE and itself. A package's name stands for all that is in
# it.
ALLOWED: dict[str, set[str]] = {
    "tai_kernels": {"tai_kernels"},
    "tai_engine.addresses": set(),
    "tai_engine.disk_cache": set(),
    "tai_engine.unfinished": set(),
    "tai_engine.errors": set(),
    "tai_engine.files": set(),
    "tai_engine.look_ahead": set(),
    "tai_engine.processors": set(),
    "tai_engine.json_documents": set(),
    "tai_engine.picture_kinds": set(),
    "tai_engine.redirects": set(),
    "tai_engine.regular_files": set(),
    "tai_engine.spaces": set(),
    "tai_engine.features": set(),
    "tai_engine.tables": set(),
    "tai_engine.vocabulary": {"tai_engine.tables"},
    "tai_engine.faiss_library": set(),
    "tai_engine.sources": {"tai_engine.tables"},
    "tai_engine.decoding": set(),
    "tai_engine.sentences": {"tai_engine.tables", "tai_engine.vocabulary"},
    "tai_engine.encoders": {"tai_engine.features", "tai_engine.decoding.pixels", "tai_kernels"},
    "tai_engine.store": {"tai_engine.features", "tai_engine.vocabulary.spelling"},
    "tai_engine.caching": {"tai_engine.features", "tai_engine.store", "tai_engine.decoding", "tai_engine.sentences"},
    "tai_engine.prompts": {"tai_engine.features", "tai_engine.vocabulary", "tai_kernels"},
    "tai_engine.tagging": {
        "tai_engine.calibration",
        "tai_engine.addresses",
        "tai_engine.features",
        "tai_engine.store",
        "tai_engine.prompts",
        "tai_engine.tables",
        "tai_engine.vocabulary.spelling",
        "tai_kernels",
    },
    "tai_engine.tagging.exporters": {"tai_engine.decoding.decode", "tai_engine.sources.ids"},
    "tai_engine.tagging.normalisation": set(),
    "tai_engine.tagging.score_batch": {"tai_engine.features"},
    "tai_engine.tagging.tag_selection": set(),
    "tai_engine.tagging.tag_rows": {"tai_engine.tables", "tai_engine.tagging.exporters"},
    "tai_engine.tagging.scoring": {
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.tagging.normalisation",
        "tai_engine.tagging.score_batch",
        "tai_kernels",
    },
    "tai_engine.explain": {
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.sheets",
        "tai_engine.tagging.scoring",
        "tai_kernels",
    },
    "tai_engine.review": {
        "tai_engine.decoding",
        "tai_engine.explain",
        "tai_engine.prompts",
        "tai_engine.features",
        "tai_engine.regular_files",
        "tai_engine.sources",
        "tai_engine.store",
        "tai_engine.tagging.exporters.tag_table",
        "tai_engine.tagging.tag_rows",
        "tai_engine.vocabulary",
    },
    "tai_engine.review.decisions": set(),
    "tai_engine.review.journal": {"tai_engine.review.decisions"},
    "tai_engine.review.merging": {"tai_engine.review.decisions", "tai_engine.tagging.exporters.tag_table"},
    "tai_engine.evaluation": {
        "tai_engine.features",
        "tai_engine.sentences.built_in",
        "tai_engine.sources.ids",
        "tai_engine.tables",
        "tai_engine.tagging.score_batch",
        "tai_engine.tagging.tag_file",
        "tai_engine.vocabulary",
    },
    "tai_engine.evaluation.measures": {"tai_engine.features"},
    "tai_engine.sheets": set(),
    "tai_engine.annotating": {
        "tai_engine.caching",
        "tai_engine.decoding",
        "tai_engine.sources",
        "tai_engine.calibration",
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.review",
        "tai_engine.sources.ids",
        "tai_engine.store",
        "tai_engine.tables",
        "tai_engine.tagging",
        "tai_engine.vocabulary.spelling",
    },
    "tai_engine.label_free": {
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.sentences.corpus",
        "tai_engine.store",
        "tai_engine.vocabulary",
    },
    "tai_engine.datasets": {"tai_engine.tables", "tai_engine.vocabulary"},
    "tai_engine.reproducing": {
        "tai_engine.caching",
        "tai_engine.datasets",
        "tai_engine.decoding",
        "tai_engine.encoders",
        "tai_engine.evaluation",
        "tai_engine.sentences",
        "tai_engine.sources",
        "tai_engine.store",
        "tai_engine.tagging",
        "tai_engine.tuning",
        "tai_engine.vocabulary",
    },
    "tai_engine.searching": {
        "tai_engine.features",
        "tai_engine.decoding",
        "tai_engine.prompts",
        "tai_engine.sheets",
        "tai_engine.sources.ids",
        "tai_engine.store",
        "tai_engine.tagging.scoring",
        "tai_kernels",
    },
    "tai_engine.calibration": {"tai_engine.features", "tai_engine.evaluation.reliability"},
    "tai_engine.evaluation.reliability": set(),
    "tai_engine.evaluation.multilabel": set(),
    "tai_engine.evaluation.draws": set(),
    "tai_engine.evaluation.bootstrap": {"tai_engine.evaluation.draws"},
    "tai_engine.evaluation.bootstrap_f1": {"tai_engine.evaluation.draws", "tai_engine.evaluation.multilabel"},
    "tai_engine.tuning": {
        "tai_engine.features",
        "tai_engine.vocabulary",
        "tai_engine.faiss_library",
        "tai_engine.evaluation.measures",
        "tai_engine.evaluation.truth",
        "tai_engine.prompts",
        "tai_engine.store",
        "tai_engine.tagging.normalisation",
        "tai_kernels",
    },
    "tai_engine.distributed": {
        "tai_engine.calibration",
        "tai_engine.caching",
        "tai_engine.decoding",
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.store",
        "tai_engine.tagging",
    },
    "tai_engine.doctor": {"tai_kernels", "tai_engine.faiss_library", "tai_engine.encoders", "tai_engine.demo"},
    "tai_engine.demo": {"tai_engine"},
    "tai_engine.cli": {"tai_engine", "tai_kernels"},
    "tai_engine.cli.bench": {"tai_engine.cli", "tai_benchmarks"},
    "tai_benchmarks": {"tai_engine", "tai_kernels"},
}
# What stands above all others: nothing below may import it, whatever its rule says.
TOPS = {"tai_engine.cli", "tai_benchmarks"}
# The public face of the engine gathers its parts.
FACE = "tai_engine"


def rule_for(module: str) -> str | None:
    homes = [home for home in ALLOWED if is_within(module, home)]
    return max(homes, key=len) if homes else None


def test_the_sources_are_found():
    assert {"tai_engine.features", "tai_kernels.scoring.ops", "tai_engine.cli.main"} <= set(SOURCES)


@pytest.mark.parametrize("module", [m for m in SOURCES if m != FACE])
def test_imports_point_one_way(module: str):
    home = rule_for(module)
    assert home is not None, f"{module} has no place in the way of the data: add it to ALLOWED and to ARCHITECTURE.md"
    allowed = ALLOWED[home] | {home} | (BASE if module.startswith("tai_engine") else set())
    imports = project_imports(SOURCES[module])
    wrong = {i for i in imports if not any(is_within(i, package) for package in allowed)}
    wrong |= {i for i in imports for top in TOPS - allowed if is_within(i, top)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_the_engine_starts_without_the_benchmarks():
    path = SOURCES["tai_engine.cli.bench"]
    assert not {name for name in imported_when_loaded(path) if is_within(name, "tai_benchmarks")}


def test_features_need_numpy_and_torch_alone():
    roots = {name.split(".")[0] for name in imported_when_loaded(SOURCES["tai_engine.features"])}
    assert roots <= {
        "__future__", "collections", "dataclasses", "numpy", "torch", "tai_engine",
    }  # fmt: skip


def test_triton_is_imported_only_where_it_runs():
    at_top = {m for m, path in SOURCES.items() if any(is_within(i, "triton") for i in imported_when_loaded(path))}
    assert at_top <= {m for m in SOURCES if m.startswith("tai_kernels.scoring.triton")}
    for module in at_top:  # and those modules are imported by nobody at the top level
        importers = [
            m
            for m, path in SOURCES.items()
            if m not in at_top
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom)
            and (node.module == module or any(f"{node.module}.{a.name}" == module for a in node.names))
        ]
        assert importers == []


def test_faiss_is_imported_in_one_place_after_torch():
    importers = [
        m
        for m, path in SOURCES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(is_within(a.name, "faiss") for a in node.names))
        or (isinstance(node, ast.ImportFrom) and is_within(node.module or "", "faiss"))
    ]
    assert importers in ([], ["tai_engine.faiss_library"])
    for module in importers:
        text = SOURCES[module].read_text(encoding="utf-8")
        assert text.index("import torch") < text.index("import faiss")


def circle_from(module: str, imports: dict[str, set[str]]) -> list[str]:
    """A way from a module back to itself, empty if there is none."""
    ways, seen = [[module]], {module}
    while ways:
        way = ways.pop()
        for following in sorted(imports.get(way[-1], ())):
            if following == module:
                return [*way, module]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def test_no_module_leads_back_to_itself():
    """Inside packages too, and through imports within functions; the faces of packages gather their parts."""
    imports = {m: project_imports(p) & set(SOURCES) for m, p in SOURCES.items() if p.name != "__init__.py"}
    assert [way for module in imports if (way := circle_from(module, imports))] == []


def test_circles_are_found():
    assert circle_from("a", {"a": {"b", "x"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle_from("a", {"a": {"b"}, "b": {"c"}, "c": {"b"}}) == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names_made_by(path: Path) -> set[str]:
    """Names with an underscore that a module gives to its functions, classes, constants and attributes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)}


OURS = {name for path in SOURCES.values() for name in private_names_made_by(path)} - {"_replace"}  # of named tuples


def private_names_of_others(path: Path) -> set[str]:
    """The project's names with an underscore that a module takes from others of its modules."""
    own, found = private_names_made_by(path), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.Attribute) and node.attr in OURS - own:
            found.add(node.attr)
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_private_names_stay_in_their_module(module: str):
    assert private_names_of_others(SOURCES[module]) == set()


def test_private_names_of_others_are_found(tmp_path: Path):
    (tmp_path / "taker.py").write_text("from tai_engine.files import _WRITE_CAUSES\nstore._files\nstore.path\n")
    assert private_names_of_others(tmp_path / "taker.py") == {"_WRITE_CAUSES", "_files"}
