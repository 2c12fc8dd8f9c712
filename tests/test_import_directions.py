"""The way of the data is one-way: every module may import only what stands before it (see ARCHITECTURE.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in (ROOT / "engine", ROOT / "kernels", ROOT / "benchmarks")
    for path in sorted(root.rglob("*.py"))
}

# Modules that anything in the engine may use.
BASE = {"tai_engine.errors", "tai_engine.files"}
# What a module or package may import of the project, beside BASE and itself. A package's name stands for all that is in
# it.
ALLOWED: dict[str, set[str]] = {
    "tai_kernels": {"tai_kernels"},
    "tai_engine.errors": set(),
    "tai_engine.files": set(),
    "tai_engine.features": set(),
    "tai_engine.vocabulary": set(),
    "tai_engine.faiss_library": set(),
    "tai_engine.ledger": set(),
    "tai_engine.sources": set(),
    "tai_engine.decoding": set(),
    "tai_engine.sentences": {"tai_engine.vocabulary"},
    "tai_engine.encoders": {"tai_engine.features", "tai_engine.decoding.pixels", "tai_kernels"},
    "tai_engine.store": {"tai_engine.features", "tai_engine.ledger"},
    "tai_engine.caching": {"tai_engine.features", "tai_engine.store", "tai_engine.decoding"},
    "tai_engine.prompts": {"tai_engine.features", "tai_engine.vocabulary", "tai_kernels"},
    "tai_engine.tagging": {"tai_engine.features", "tai_engine.store", "tai_engine.prompts", "tai_kernels"},
    "tai_engine.tagging.exporters": set(),
    "tai_engine.tagging.scoring": {"tai_engine.features", "tai_engine.prompts", "tai_kernels"},
    "tai_engine.evaluation": {"tai_engine.sources", "tai_engine.tagging.tag_file"},
    "tai_engine.evaluation.measures": {"tai_engine.features"},
    "tai_engine.tuning": {
        "tai_engine.features",
        "tai_engine.vocabulary",
        "tai_engine.faiss_library",
        "tai_engine.evaluation.measures",
        "tai_engine.prompts",
        "tai_engine.store",
        "tai_kernels",
    },
    "tai_engine.distributed": {
        "tai_engine.caching",
        "tai_engine.decoding",
        "tai_engine.features",
        "tai_engine.prompts",
        "tai_engine.store",
        "tai_engine.tagging",
    },
    "tai_engine.doctor": {"tai_kernels", "tai_engine.faiss_library", "tai_engine.encoders", "tai_engine.demo"},
    "tai_engine.demo": {"tai_engine"},
    "tai_engine.cli": {"tai_engine", "tai_kernels", "tai_benchmarks"},
    "tai_benchmarks": {"tai_engine", "tai_kernels", "tai_benchmarks"},
}
# The public face of the engine gathers its parts.
FACE = "tai_engine"


def project_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            base = node.module or ""
            # `from package import module` names a module, `from module import name` a name in it.
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in SOURCES else base for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"tai_engine", "tai_kernels", "tai_benchmarks"}}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


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
    wrong = {i for i in project_imports(SOURCES[module]) if not any(is_within(i, package) for package in allowed)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def third_party_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:  # the top level only: a lazy import is fine
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    return roots


def test_features_need_numpy_and_torch_alone():
    assert third_party_roots(SOURCES["tai_engine.features"]) <= {
        "__future__", "collections", "dataclasses", "numpy", "torch", "tai_engine",
    }  # fmt: skip


def test_triton_is_imported_only_where_it_runs():
    at_top = {m for m, path in SOURCES.items() if "triton" in third_party_roots(path)}
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
