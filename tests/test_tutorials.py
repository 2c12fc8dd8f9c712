"""The commands of the tutorials work as they stand there, one after the other, with the embedded model."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project_sources import ROOT
from tai_engine.encoders.embedded import embedded_folder

PAGES = ROOT / "engine" / "docs" / "pages"
WHAT_COMES_OUT = {
    "photos": ["results/report/index.html", "instances.json", "tags.csv", "found.png", "all.parquet"],
    "research": ["prompts.safetensors", "zero-shot.parquet", "tuned.parquet"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", WHAT_COMES_OUT)
def test_commands_of_a_tutorial(page: str, tmp_path: Path):
    blocks = re.findall(r"```sh\n(.*?)```", (PAGES / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    shutil.copytree(Path(str(embedded_folder("photos"))) / "photographs", tmp_path / "photos")
    command = tmp_path / "bin" / "tai"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from tai_engine.cli.main import main; main()" "$@"\n', encoding="utf-8"
    )
    command.chmod(0o755)
    roots = os.pathsep.join(str(ROOT / name) for name in ("engine", "kernels", "benchmarks"))
    environment = os.environ | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": roots}
    for block in blocks:
        done = subprocess.run(
            ["sh", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert [name for name in WHAT_COMES_OUT[page] if not (tmp_path / name).exists()] == []


def test_pages_point_to_each_other_and_are_all_in_the_list():
    listed = set(re.findall(r"(\w+\.md)$", (PAGES.parent / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert listed == set(pages)
    linked = {link for text in pages.values() for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)}
    assert linked <= listed


def test_the_reference_has_every_name_of_the_package():
    import tai_engine

    text = (PAGES / "api.md").read_text(encoding="utf-8")
    named = {path.rpartition(".")[2] for path in re.findall(r"^::: (tai_engine[\w.]*)$", text, re.MULTILINE)}
    assert set(tai_engine.__all__) <= named
