from pathlib import Path

from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.sources import open_source
from tai_engine.truth import load_truth
from tai_engine.vocabulary import load_vocabulary


def test_pictures_and_their_truth_fit_together_and_repeat(tmp_path: Path):
    first = draw_pictures(tmp_path / "a", 3, seed=5)
    assert draw_pictures(tmp_path / "b", 3, seed=5) == first
    assert draw_pictures(tmp_path / "c", 3, seed=6) != first
    for name, _ in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert [item.id for item in open_source(str(tmp_path / "a"))] == [name for name, _ in first]
    names = load_vocabulary("coco80").names
    truth = load_truth(tmp_path / "a" / TRUTH_NAME, names)
    assert truth.ids == tuple(name for name, _ in first)
    for row, (_, labels) in zip(truth.labels, first, strict=True):
        assert {names[c] for c in (row == 1).nonzero()[0]} == labels
        assert 1 <= len(labels) <= 4
