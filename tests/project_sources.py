"""The project's own source files by module, and what they import."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"tai_engine", "tai_kernels", "tai_benchmarks"}
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in (ROOT / "engine", ROOT / "kernels", ROOT / "benchmarks")
    for path in sorted(root.rglob("*.py"))
}


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
    return {name for name in found if name.split(".")[0] in PACKAGES}


def imported_when_loaded(path: Path) -> set[str]:
    """The modules that are imported with this one: neither for type checkers alone nor inside functions."""
    return {
        name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")
