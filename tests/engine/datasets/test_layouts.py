"""Published layouts with their quirks: every label where it belongs."""

import pytest

from tai_engine.datasets.coco import read_coco
from tai_engine.datasets.long_tail import long_tail_groups, read_coco_lt, read_voc_mlt
from tai_engine.datasets.nuswide import read_nuswide
from tai_engine.datasets.voc import read_voc
from tai_engine.errors import UserError
from tai_engine.evaluation.class_splits import load_splits
from tai_engine.reproducing.miniatures import write_coco, write_coco_lt, write_nuswide, write_voc, write_voc_mlt

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


def test_voc2012_and_coco2017(tmp_path):
    found = read_voc(write_voc(tmp_path, VOC, 2012, "trainval"), 2012, "trainval")
    assert found.list_name == "VOC2012 trainval, 3 pictures"
    assert labels_of(found)["000001.jpg"] == {"dog": 1, "dining table": 0}
    found = read_coco(write_coco(tmp_path, {"000000000139.jpg": ["cat"]}, "val2017"), "val2017")
    assert labels_of(found) == {"000000000139.jpg": {"cat": 1}}


def test_the_novel_and_unseen_classes_of_coco(tmp_path):
    """Pictures that hold one of them, and generalised: all 65 classes."""
    found = read_coco(write_coco(tmp_path, {"a.jpg": ["cup", "dog"], "b.jpg": ["person"], "c.jpg": ["toaster"]}))
    groups = load_splits("coco-48-17").groups
    unseen = found.only(groups["unseen"], with_positive=True)
    assert labels_of(unseen) == {"a.jpg": {"cup": 1, "dog": 1}}
    generalised = found.only((*groups["seen"], *groups["unseen"]), with_positive=True)
    assert (len(generalised), len(generalised.class_names)) == (3, 65)
    novel = found.only(load_splits("coco-16-novel").groups["novel"], with_positive=True)
    assert labels_of(novel) == {"a.jpg": {"cup": 1}}


def test_voc_mlt(tmp_path):
    found = read_voc_mlt(write_voc_mlt(tmp_path))
    assert found.list_name == "VOC-MLT training, 100 pictures"
    assert "2012_004331.jpg" not in found.ids  # of VOC2012, but not of the list
    # Half of the pictures hold only difficult objects, which count.
    assert set(found.labels.ravel().tolist()) == {1, -1}
    assert long_tail_groups(found) == load_splits("voc-mlt").groups


def test_coco_lt(tmp_path):
    write_coco_lt(tmp_path)
    found = read_coco_lt(tmp_path)
    assert found.list_name == "COCO-LT training, 100 pictures"
    assert found.ids[0] == "000000000709.jpg"  # in the order of the list, which is not sorted
    assert long_tail_groups(found) == load_splits("coco-lt").groups
    assert (found.labels == 1).sum(axis=0).tolist()[:5] == [100, 30, 100, 30, 5]


def test_lists_of_a_long_tail_that_do_not_fit(tmp_path):
    write_coco_lt(tmp_path)
    listing = tmp_path / "longtail2017" / "img_id.pkl"
    listing.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="is a pickle, which tai-engine never loads"):
        read_coco_lt(tmp_path)
    listing.write_text("16\n17\n")
    with pytest.raises(UserError, match=r"1 pictures of .* the first is '000000000017\.jpg'"):
        read_coco_lt(tmp_path)
    listing.write_text("16\ndog\n")
    with pytest.raises(UserError, match="has the line 'dog'"):
        read_coco_lt(tmp_path)
    with pytest.raises(UserError, match="no VOC-MLT's training list at"):
        read_voc_mlt(tmp_path)
