"""Published layouts with their quirks: every label where it belongs."""

import pytest

from published_layouts import write_coco, write_nuswide, write_voc
from tai_engine.datasets.coco import read_coco
from tai_engine.datasets.nuswide import read_nuswide
from tai_engine.datasets.voc import read_voc
from tai_engine.errors import UserError

VOC = {"000001": {"dog": 1, "dining table": 0}, "000004": {}, "000006": {"tv monitor": 1, "person": 1}}
COCO = {
    "COCO_val2014_000000000042.jpg": ["toothbrush", "person"],
    "COCO_val2014_000000000073.jpg": [],
    "COCO_val2014_000000000074.jpg": ["hot dog"],
}
NUSWIDE = {"actor/0001_2124494179.jpg": ["person", "sky"], "zoo/0002_1.jpg": [], "zoo/0003_2.jpg": ["tiger"]}


def labels_of(found):
    return {
        name: {c: int(value) for c, value in zip(found.class_names, row, strict=True) if value != -1}
        for name, row in zip(found.ids, found.labels, strict=True)
    }


@pytest.mark.parametrize("where", ["", "VOCdevkit/VOC2007"])
def test_voc(tmp_path, where):
    found = read_voc(write_voc(tmp_path, VOC) / where)
    assert labels_of(found) == {f"{name}.jpg": classes for name, classes in VOC.items()}
    assert found.list_name == "VOC2007 test, 3 pictures"
    assert all((found.images / name).is_file() for name in found.ids)


def test_coco(tmp_path):
    found = read_coco(write_coco(tmp_path, COCO))
    assert labels_of(found) == {name: dict.fromkeys(classes, 1) for name, classes in COCO.items()}
    assert found.list_name == "COCO val2014, 3 pictures (all)"
    assert all((found.images / name).is_file() for name in found.ids)
    without = read_coco(tmp_path, without_empty=True)
    assert without.ids == tuple(name for name, classes in COCO.items() if classes)
    assert without.list_name == "COCO val2014, 2 pictures (with an object)"


def test_nuswide(tmp_path):
    found = read_nuswide(write_nuswide(tmp_path, NUSWIDE))
    assert labels_of(found) == {name: dict.fromkeys(classes, 1) for name, classes in NUSWIDE.items()}
    assert found.list_name == "NUS-WIDE test, 3 pictures (a list of its own)"
    assert all((found.images / name).is_file() for name in found.ids)
    shorter = tmp_path / "only.txt"
    shorter.write_text("zoo\\0003_2.jpg\n./actor/0001_2124494179.jpg\n")
    assert labels_of(read_nuswide(tmp_path, only=shorter)) == {
        "zoo/0003_2.jpg": {"tiger": 1},
        "actor/0001_2124494179.jpg": {"person": 1, "sky": 1},
    }


def test_some_of_the_classes(tmp_path):
    found = read_coco(write_coco(tmp_path, COCO))
    some = found.only(("hot dog", "cat"), with_positive=True)
    assert labels_of(some) == {"COCO_val2014_000000000074.jpg": {"hot dog": 1}}
    assert len(found.only(("hot dog",), with_positive=False)) == 3


def test_what_is_missing_or_damaged_is_said(tmp_path):
    for read, words in ((read_voc, "no VOC2007 at"), (read_coco, "no COCO annotations"), (read_nuswide, "Test list")):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "nowhere")
    write_voc(tmp_path, VOC)
    labels = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "dog_test.txt"
    labels.write_text("000001 1\n")
    with pytest.raises(UserError, match="has 1 lines and the list has 3"):
        read_voc(tmp_path)
    labels.write_text("000009 1\n")
    with pytest.raises(UserError, match=r"Line 1 of .* is '000009 1'"):
        read_voc(tmp_path)
    labels.unlink()
    with pytest.raises(UserError, match="labels of 'dog'"):
        read_voc(tmp_path)
    write_coco(tmp_path, COCO)
    instances = tmp_path / "annotations" / "instances_val2014.json"
    instances.write_text(instances.read_text()[:-40])
    with pytest.raises(UserError, match="not a file of COCO instances"):
        read_coco(tmp_path)
    instances.write_text('{"categories": [{"id": 1, "name": "unicorn"}]}')
    with pytest.raises(UserError, match="'unicorn', which is none of COCO's 80"):
        read_coco(tmp_path)
    write_nuswide(tmp_path, NUSWIDE)
    (tmp_path / "Groundtruth" / "TrainTestLabels" / "Labels_sky_Test.txt").write_text("1\n2\n")
    with pytest.raises(UserError, match="has 2 lines of 1, 2; expected 3 lines"):
        read_nuswide(tmp_path)
    shorter = tmp_path / "only.txt"
    shorter.write_text("zoo/none.jpg\n")
    write_nuswide(tmp_path, NUSWIDE)
    with pytest.raises(UserError, match=r"1 pictures of .* the first is 'zoo/none\.jpg'"):
        read_nuswide(tmp_path, only=shorter)
