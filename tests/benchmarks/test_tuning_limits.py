from pathlib import Path

import pytest
import torch

from tai_benchmarks import tuning_limits
from tai_benchmarks.tuning_limits import gap, report, wordings
from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.encoders import Encoder
from tai_engine.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_embedded_clip(device="cpu")


def test_gap_by_hand() -> None:
    items = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    holds = torch.tensor([[True, False, False], [True, True, False]])
    found = gap(items, holds, classes)
    assert found.held == pytest.approx((1.0 + 0.6 + 0.8) / 3)
    assert found.others == pytest.approx((0.0 - 1.0 - 0.6) / 3)
    assert found.mean_length == pytest.approx((0.8**2 + 0.4**2) ** 0.5)


def test_wordings_of_names_that_the_model_knows_and_not(encoder: Encoder) -> None:
    same, blank = wordings(encoder, Vocabulary.from_names(["dog", "cat", "oven", "toaster"], "some"))
    assert same > 0.99
    assert blank > 0.99
    assert wordings(encoder, Vocabulary.from_names(["dog", "zebra crossing", "wine", "pizza box"], "others"))[1] < 0.9


def test_a_line_for_each_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: Encoder) -> None:
    monkeypatch.setattr(tuning_limits, "CEILING_STEPS", 6)
    monkeypatch.setattr(tuning_limits, "load_embedded_clip", lambda **_: encoder)
    monkeypatch.setattr(tuning_limits, "SENTENCES", 200)
    lines = list(report(tmp_path, 40))
    assert [line.split(":")[0] for line in lines] == [*["wordings"] * 2, *["gap"] * 2, *["ceiling"] * 3]
    assert "class-specific contexts, 20 labelled scenes" in lines[-1]
    assert all(0 < float(part.split()[-1]) <= 100 for line in lines[-3:] for part in line.split(": ")[-1].split(", "))
