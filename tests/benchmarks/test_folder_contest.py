"""Whole commands over a folder: what is timed, what a row says, and the plain loop's features."""

import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tai_benchmarks import folder_contest, plain_loop
from tai_benchmarks.folder_contest import LOOP, OURS, THEIRS, commands, run, write_model

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def waits(seconds):
    """A command that takes so long for each picture, and makes the folder."""
    code = "import os, sys, time; time.sleep({} * len(os.listdir(sys.argv[1]))); os.mkdir(sys.argv[2])"
    return lambda pictures, out: [sys.executable, "-c", code.format(seconds), str(pictures), str(out)]


def test_rows_of_commands(tmp_path):
    rows = list(run({LOOP: waits(0.05), THEIRS: waits(0.05), OURS: waits(0.01)}, "rn50", 2, 22, 1, tmp_path))
    assert [(row.candidate, row.baseline) for row in rows] == [
        (name, baseline) for baseline in (LOOP, THEIRS) for name in (LOOP, THEIRS, OURS)
    ]
    assert {(row.bench, row.case, row.unit) for row in rows} == {("folder", "rn50/20-photographs", "images/s")}
    values = {row.candidate: row.value for row in rows}
    assert all(row.ratio == pytest.approx(row.value / values[row.baseline]) for row in rows)
    assert len(list((tmp_path / "22").iterdir())) == 22
    assert not (tmp_path / "out").exists()


def test_a_command_that_fails_is_not_timed(tmp_path):
    fails = {LOOP: lambda *_: [sys.executable, "-c", "raise SystemExit('no')"]}
    with pytest.raises(RuntimeError, match="ended with 1: no"):
        list(run(fails, "rn50", 1, 2, 1, tmp_path))


def test_starting_that_takes_all_of_the_time_is_no_rate(tmp_path, monkeypatch):
    taken = iter([3.0, 2.9])
    monkeypatch.setattr(folder_contest, "_seconds", lambda *_: next(taken))
    with pytest.raises(RuntimeError, match="2 pictures took no longer than 1: take more"):
        list(run({LOOP: waits(0)}, "rn50", 1, 2, 1, tmp_path))


def test_another_program_is_measured_where_it_is_said(tmp_path):
    assert THEIRS not in commands("RN50", tmp_path / "w", None)
    command = commands("RN50", tmp_path / "w", "/bin/theirs")[THEIRS](tmp_path / "p", tmp_path / "o")
    assert command[:2] == ["/bin/theirs", "inference"]
    assert command[command.index("--clip_model") + 1] == f"open_clip:RN50/{tmp_path / 'w'}"


def test_the_plain_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS, "tiny-loop": TINY})
    monkeypatch.setattr(plain_loop, "_WORKERS", 0)
    weights = write_model("tiny-loop", tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 32), (80 * number, 20, 200)).save(tmp_path / "pictures" / f"{number}.png")
    plain_loop.main(str(tmp_path / "pictures"), str(tmp_path / "out"), "tiny-loop", str(weights))
    found = np.load(tmp_path / "out" / "features.npy")
    model, _, transform = open_clip.create_model_and_transforms("tiny-loop", pretrained=str(weights))
    pixels = torch.stack([transform(Image.open(tmp_path / "pictures" / f"{n}.png")) for n in range(3)])
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(model.eval().encode_image(pixels), dim=1)
    assert (found.dtype, found.shape) == (np.float16, (3, 16))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-3)
