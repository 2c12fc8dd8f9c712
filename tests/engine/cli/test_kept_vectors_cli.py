"""A vocabulary that was tagged with before needs no text tower: nothing that loads one is imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from project_sources import ROOT
from tiny_models import write_tiny_model

SLOW = ("open_clip", "timm", "torchvision", "transformers", "faiss", "pandas", "sklearn", "scipy", "torch._dynamo")
PROGRAM = f"""
import json, sys
from tai_engine.cli.main import main
try:
    main()
except SystemExit as leaving:
    print(json.dumps([leaving.code, [name for name in {SLOW!r} if name in sys.modules]]))
"""


def run(cache: Path, *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, slow modules that were imported, and stderr of a command in a process of its own."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("engine", "kernels", "benchmarks"))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TAI_KEEP_VECTORS"},
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": roots,
    }
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    status, imported = json.loads(done.stdout.splitlines()[-1])
    return status or 0, imported, done.stderr


@pytest.mark.slow
def test_a_tagger_that_knows_its_words_imports_no_model(tai, picture_folder, tmp_path):
    folder = Path(write_tiny_model(tmp_path / "model", "resnet", 0).removeprefix("local-dir:"))
    kernels = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tai-engine" / "kernels"
    if kernels.exists():  # not to be compiled again
        shutil.copytree(kernels, tmp_path / "cache" / "tai-engine" / "kernels")
    store = tmp_path / "s.zarr"
    tai("cache", "images", picture_folder, store, "--model", f"local-dir:{folder}")

    def tag(name: str) -> tuple[int, list[str], str]:
        return run(tmp_path / "cache", "tag", store, "--vocabulary", "voc20", "--out", tmp_path / name)

    status, imported, _ = tag("first.parquet")
    assert (status, imported[0]) == (0, "open_clip")
    status, imported, stderr = tag("second.parquet")
    assert (status, imported) == (0, []), stderr
    first, second = (pq.read_table(tmp_path / name) for name in ("first.parquet", "second.parquet"))
    assert first.equals(second)
    assert first.num_rows == 5 * 20

    # Other weights under the same name: what was kept is not theirs, and they are not the store's.
    write_tiny_model(folder, "resnet", 1)
    status, imported, stderr = tag("third.parquet")
    assert status == 2
    assert "now gives" in stderr
    assert not (tmp_path / "third.parquet").exists()
