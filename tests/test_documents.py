"""What the documents say to write works, and what they point to is there."""

import re
from pathlib import Path

import pytest

from tag_samples import PICTURES, PROVENANCE, batches

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")


def test_the_exporter_of_the_example(tmp_path: Path):
    example = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    module: dict = {}
    exec(example, module)
    assert module["export"](iter(batches()), tmp_path / "tags.md", PROVENANCE) == sum(len(tags) for _, tags in PICTURES)
    lines = (tmp_path / "tags.md").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["Space: rn50:1, pictures in '.'.", "", "- a.jpg: dog, traffic light"]
    assert len(lines) == 2 + len(PICTURES)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_point_to_files(name: str):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]


# The file that the example of CONTRIBUTING.md makes.
MADE_BY_THE_EXAMPLE = "engine/tai_engine/tagging/exporters/markdown.py"
ROOTS = [ROOT, ROOT / "engine/tai_engine", ROOT / "kernels/tai_kernels", ROOT / "kernels/tai_kernels/scoring"]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_in_backticks_are_there(name: str):
    """Those from the root, and those below a package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.(?:py|h|toml|md|txt))?)`", text)
    paths = set(found) - {MADE_BY_THE_EXAMPLE}
    assert len(paths) > 10
    assert not [path for path in paths if not any((root / path).exists() for root in ROOTS)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_makes_targets_are_those_of_the_makefile(name: str):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(
        re.findall(r"make ([a-z]+(?:-[a-z]+)*)(?=[`\s]*(?:\n|`|  ))", (ROOT / name).read_text(encoding="utf-8"))
    )
    assert named <= targets


@pytest.mark.parametrize("package", ["engine/tai_engine", "kernels/tai_kernels"])
def test_the_tree_of_the_architecture_names_every_room(package: str):
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text[text.index("## Where things are") : text.index("### The way of a photo")]
    rooms = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or path.is_dir()}
    unnamed = rooms - set(re.findall(r"[a-z0-9_]+", tree))
    assert not {room for room in unnamed if not room.startswith("__")}
