import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tai_engine.cli.main import main
from tiny_models import write_tiny_model


@dataclass(frozen=True)
class Outcome:
    status: int
    stdout: str
    stderr: str

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def tai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process, as the shell would see it."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tai", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        code = leaving.value.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err, captured.err
        return Outcome(0 if code is None else int(code), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(tmp_path_factory.mktemp("cli-models") / "resnet", "resnet", 0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same architecture with other weights: another space."""
    return write_tiny_model(tmp_path_factory.mktemp("cli-models") / "resnet", "resnet", 1)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in two folders, and three files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    random = np.random.default_rng(0)
    for n in range(5):
        pixels = random.integers(0, 255, (40 + n, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("sub" if n > 2 else "") / f"{n}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "empty.jpg").touch()
    whole = (folder / "0.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path, tiny_model: str) -> Path:
    """A store of the five good pictures; made once, not to be changed."""
    store = tmp_path_factory.mktemp("stores") / "s.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["tai", "cache", "images", str(picture_folder), str(store), "--model", tiny_model]
        )  # fmt: skip
        with pytest.raises(SystemExit) as leaving:
            main()
    assert leaving.value.code == 1  # three pictures failed
    return store
