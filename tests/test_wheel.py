"""What people install: the wheel, outside the checkout, in an environment of its own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_packages_data_and_licences(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "tai_engine/py.typed",
        "tai_kernels/py.typed",
        "tai_kernels/scoring/ops.py",
        "tai_benchmarks/__init__.py",
        "tai_engine/vocabularies/coco80.toml",
        "tai_engine/demo/photo_clip/open_clip_model.safetensors",
        "tai_engine/review/static/page.html",
        "tai_engine/review/static/app.js",
    ):
        assert wanted in names
    assert {Path(n).name for n in names if ".dist-info/licenses/" in n} == {"LICENSE", "NOTICE"}
    assert not [n for n in names if n.startswith("tests")]
    model = zipfile.ZipFile(wheel).getinfo("tai_engine/demo/photo_clip/open_clip_model.safetensors")
    assert model.file_size <= 40e6
    assert model.compress_size <= 25e6


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # Dependencies come from this environment. Path files in there are not read again, so our checkout stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path
    )
    where = run(python, "-c", "import tai_engine, tai_kernels; print(tai_engine.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    demo = ("demo", "--out", "out", "--captions", "100", "--json")
    result = json.loads(run(tmp_path / "venv" / "bin" / "tai", *demo, cwd=tmp_path))
    assert result["photographs"] == 25
    assert result["map"]["merged"]["zero_shot"][0] > 0.5  # chance is the share of a class in the pictures, about 0.04
    for key in ("store", "tags", "contact_sheet", "heatmaps", "report"):
        assert (tmp_path / result[key]).exists()
    with Image.open(tmp_path / result["contact_sheet"]) as sheet:
        assert min(sheet.size) > 1000
