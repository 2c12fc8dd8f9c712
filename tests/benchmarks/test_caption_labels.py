import os
from pathlib import Path

import pytest

from tai_benchmarks import caption_labels
from tai_benchmarks.caption_labels import Agreement, ClassAgreement, agreement, read_truth
from tai_engine.vocabulary import Vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "coco_val2017_captions.jsonl").write_text(
        '{"image_id": 2, "caption": "A dog"}\n'
        '{"image_id": 2, "caption": "A dog and a cat"}\n'
        '{"image_id": 4, "caption": "Two cats, one cat"}\n'
        '{"image_id": 4, "caption": "A kitten"}\n'
        '{"image_id": 5, "caption": "A dog without truth"}\n'
    )
    (tmp_path / "coco_val2017_labels_even_ids.txt").write_text("000000000002 0\n000000000004 0 1\n000000000006 1\n")
    (tmp_path / "pets.txt").write_text("dog\ncat: kitten\nemu\n")
    return tmp_path


def test_union_over_an_images_captions_by_hand(folder: Path) -> None:
    truth = read_truth(folder / "coco_val2017_labels_even_ids.txt")
    assert truth == {"2": {0}, "4": {0, 1}, "6": {1}}
    found = agreement(folder / "coco_val2017_captions.jsonl", truth, Vocabulary.from_names(["dog", "cat", "emu"]))
    assert found.images == 2  # image 6 has no caption, image 5 no truth
    dog, cat, emu = found.classes
    assert (dog.captioned, dog.true, dog.both, dog.precision, dog.recall) == (1, 2, 1, 1.0, 0.5)
    assert (cat.captioned, cat.true, cat.both, cat.precision, cat.recall) == (2, 1, 1, 0.5, 1.0)
    assert dict(cat.wrong_words) == {"cat": 1}
    assert (emu.captioned, emu.true, emu.precision, emu.recall, emu.f1) == (0, 0, 1.0, 1.0, 1.0)
    assert found.pooled.precision == pytest.approx(2 / 3)
    assert found.pooled.recall == pytest.approx(2 / 3)
    assert found.worst(5) == [cat, dog]  # equal F1: by name; the emu is in no image


def test_worst_classes_come_first() -> None:
    good, bad = ClassAgreement("a", 4, 4, 4), ClassAgreement("b", 4, 4, 1)
    assert [c.name for c in Agreement(4, [good, bad]).worst(1)] == ["b"]
    assert bad.f1 == pytest.approx(0.25)


def test_the_command_prints_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption_labels.main([str(folder), "--vocabulary", str(folder / "pets.txt")]) == 0
    printed = capsys.readouterr().out
    assert "5 captions, 5 name a class (100.0%), 1.20 classes each" in printed
    assert "2 images: precision 0.667, recall 0.667, F1 0.667" in printed


@pytest.mark.data
def test_real_captions_agree_with_the_pictures() -> None:
    data = os.environ.get("TAI_DATA")
    if not data:
        pytest.skip("needs the outside data folder named by TAI_DATA")
    from tai_engine.vocabulary import load_vocabulary

    truth = read_truth(Path(data) / "coco_val2017_labels_even_ids.txt")
    found = agreement(Path(data) / "coco_val2017_captions.jsonl", truth, load_vocabulary("coco80"))
    assert found.images == 2515
    assert found.pooled.precision > 0.85
    assert found.pooled.recall > 0.58
