"""Each format holds every picture and tag, as its own parser reads it back."""

import csv
import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from PIL import Image

from tag_samples import CLASSES, PICTURES, PROVENANCE, batches, names_of
from tai_engine.errors import UserError
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.item_tags import ExportOptions, items_of
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA


def coco(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    names = {c["id"]: c["name"] for c in value["categories"]}
    found = {image["file_name"]: [] for image in value["images"]}
    files = {image["id"]: image["file_name"] for image in value["images"]}
    for annotation in value["annotations"]:
        found[files[annotation["image_id"]]].append(names[annotation["category_id"]])
    return found


def cvat(path):
    images = etree.parse(path).getroot().findall("image")
    return {image.get("name"): [tag.get("label") for tag in image.findall("tag")] for image in images}


def datumaro(path):
    value = json.loads((path / "annotations" / "default.json").read_text(encoding="utf-8"))
    names = [label["name"] for label in value["categories"]["label"]["labels"]]
    return {i["image"]["path"]: [names[a["label_id"]] for a in i["annotations"]] for i in value["items"]}


def label_studio(path):
    tasks = [task for file in sorted(path.glob("tasks-*.json")) for task in json.loads(file.read_text("utf-8"))]
    return {
        task["data"]["id"]: [n for r in task["predictions"][0]["result"] for n in r["value"]["choices"]]
        for task in tasks
    }


def huggingface(path):
    lines = map(json.loads, (path.parent / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["file_name"]: line["tags"] for line in lines}


def fiftyone(path):
    labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
    return {name: [label["label"] for label in found] for name, found in labels.items()}


def long_csv(path):
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["id"], []).append(row["tag"])
    return found


def wide_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {row.pop("id"): {name for name, cell in row.items() if cell} for row in csv.DictReader(file)}


READERS = {
    "coco": coco,
    "cvat": cvat,
    "datumaro": datumaro,
    "label-studio": label_studio,
    "huggingface": huggingface,
    "fiftyone": fiftyone,
    "csv": long_csv,
    "csv-wide": wide_csv,
}
SUFFIXES = {
    "cvat": ".xml",
    "datumaro": "",
    "label-studio": "",
    "huggingface": ".jsonl",
    "csv": ".csv",
    "csv-wide": ".csv",
}


def export(name, folder, pictures=PICTURES, options=ExportOptions(), **how):  # noqa: B008 - frozen
    file = "metadata.jsonl" if name == "huggingface" else f"out{SUFFIXES.get(name, '.json')}"
    rows = exporters.get(name).export(iter(batches(pictures, **how)), folder / file, PROVENANCE, options)
    assert rows == sum(len(tags) for _, tags in pictures)
    return folder / file


def without_ending(names):
    return {name.rsplit(".", 1)[0]: tags for name, tags in names.items()}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("calibrated", [True, False])
def test_every_picture_and_tag_comes_back(tmp_path, name, calibrated):
    expected = names_of()
    if name == "fiftyone":
        expected = without_ending(expected)
    if name == "csv-wide":
        expected = {picture: set(tags) for picture, tags in expected.items()}
    assert READERS[name](export(name, tmp_path, calibrated=calibrated)) == expected
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", [name for name in READERS if name != "csv"])
def test_pictures_that_were_scored_and_got_no_tag_have_an_entry_too(tmp_path, name):
    expected = names_of()
    untagged = ("no tag.jpg", "sub/ä.jpg")
    found = READERS[name](export(name, tmp_path, options=ExportOptions(untagged=untagged)))
    ids = [*expected, *untagged]
    assert list(found) == ([i.rsplit(".", 1)[0] for i in ids] if name == "fiftyone" else ids)
    assert [len(tags) for tags in found.values()] == [*map(len, expected.values()), 0, 0]


@pytest.mark.parametrize("name", READERS)
def test_no_picture_at_all(tmp_path, name):
    assert READERS[name](export(name, tmp_path, pictures=())) == {}


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1, max_size=8
)


@settings(max_examples=25, deadline=None)
@given(
    pictures=st.dictionaries(TEXT, st.sets(st.sampled_from(CLASSES), min_size=1), max_size=4),
    size=st.integers(1, 5),
    name=st.sampled_from(["coco", "cvat", "label-studio", "huggingface", "csv"]),
)
def test_names_of_any_kind_come_back(tmp_path_factory, pictures, size, name):
    table = tuple((picture, tuple((tag, 0.5, 0.5) for tag in sorted(tags))) for picture, tags in pictures.items())
    path = export(name, tmp_path_factory.mktemp("any"), pictures=table, size=size)
    assert READERS[name](path) == {picture: sorted(tags) for picture, tags in pictures.items()}


def test_confidences_are_probabilities_and_never_raw_scores(tmp_path):
    for calibrated, confidence in ((True, 0.75), (False, None)):
        folder = tmp_path / str(calibrated)
        folder.mkdir()
        label = json.loads(export("fiftyone", folder, calibrated=calibrated).read_text("utf-8"))["labels"]["a"][0]
        assert label.get("confidence") == confidence
        assert label["attributes"] == {"score": 0.3}
        tasks = json.loads(
            (export("label-studio", folder, calibrated=calibrated) / "tasks-00000.json").read_text("utf-8")
        )
        assert tasks[0]["predictions"][0].get("score") == (0.625 if calibrated else None)


def test_label_studio_has_small_files_and_addresses_it_can_open(tmp_path):
    path = export("label-studio", tmp_path, options=ExportOptions(file_items=2))
    assert sorted(p.name for p in path.iterdir()) == ["labelling-config.xml", "tasks-00000.json", "tasks-00001.json"]
    task = json.loads((path / "tasks-00000.json").read_text("utf-8"))[1]
    assert task["data"]["image"] == "/data/local-files/?d=sub%20folder/%C3%BC%20%26%20%27x%27.png"
    choices = etree.parse(path / "labelling-config.xml").findall(".//Choice")
    assert [choice.get("value") for choice in choices] == CLASSES


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_sizes_are_those_of_the_picture_as_it_is_shown(tmp_path, kind):
    images = tmp_path / "images"
    images.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 20)).save(images / "a.jpg", kind, exif=exif)
    value = json.loads(export("coco", tmp_path, options=ExportOptions(images=images)).read_text("utf-8"))
    assert (value["images"][0]["width"], value["images"][0]["height"]) == (20, 30)
    assert "width" not in value["images"][1]


def test_wide_cells_are_probabilities_where_there_are_any(tmp_path):
    rows = export("csv-wide", tmp_path).read_text("utf-8").splitlines()
    assert rows[1] == "a.jpg,0.75,0.5,,,,,"
    assert export("csv-wide", tmp_path, calibrated=False).read_text("utf-8").splitlines()[1] == "a.jpg,0.3,-1.25,,,,,"
    assert export("csv", tmp_path).read_text("utf-8").splitlines()[1] == "a.jpg,dog,0.3,0.75,"


def test_pictures_that_differ_in_their_ending_alone_are_refused_where_it_is_lost(tmp_path):
    two = (("x/a.jpg", (("dog", 1.0, None),)), ("x/a.png", (("dog", 1.0, None),)))
    for name in ("fiftyone", "datumaro"):
        with pytest.raises(UserError, match=r"'x/a\.jpg' and 'x/a\.png' would be one"):
            export(name, tmp_path, pictures=two)
    assert list(tmp_path.iterdir()) == []


def test_what_xml_cannot_write_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'bell\\x07\.jpg' has a control character"):
        export("cvat", tmp_path, pictures=(("bell\x07.jpg", (("dog", 1.0, None),)),))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_written_over(tmp_path):
    export("datumaro", tmp_path)
    with pytest.raises(UserError, match="exists already"):
        export("datumaro", tmp_path)
    (tmp_path / "empty").mkdir()
    assert exporters.get("datumaro").export(iter(batches()), tmp_path / "empty", PROVENANCE) == 7


def test_formats_that_hold_one_class_are_refused_with_the_reason():
    with pytest.raises(UserError, match="one class a picture"):
        exporters.get("yolo-cls")
    with pytest.raises(UserError, match=r"reads metadata\.jsonl only"):
        exporters.get("huggingface").export([], "tags.jsonl", PROVENANCE)
    with pytest.raises(UserError, match="do not say which words"):
        exporters.get("coco").export([], "x.json", {})


@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio", "huggingface", "csv-wide", "fiftyone"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(tmp_path, name):
    """5,000 pictures of three tags: text of some 1.3 MB, most of it written and let go."""

    def many():
        for start in range(0, 5_000, 250):
            rows = [
                {"id": f"folder/{n:06d}.jpg", "tag": tag, "score": 0.5, "probability": 0.5, "threshold": None}
                for n in range(start, start + 250)
                for tag in CLASSES[:3]
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=TAG_SCHEMA)

    options = ExportOptions(file_items=250)
    path = tmp_path / ("metadata.jsonl" if name == "huggingface" else "out.json")
    exporters.get(name).export(
        iter(batches()), tmp_path / "before" / path.name, PROVENANCE
    )  # modules load, caches fill
    tracemalloc.start()
    assert exporters.get(name).export(many(), path, PROVENANCE, options) == 15_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (3 << 20 if name == "fiftyone" else 3 << 19)  # FiftyOne's keys are remembered, to find clashes


def test_items_keep_together_over_the_borders_of_batches():
    assert [(item.id, [tag.name for tag in item.tags]) for item in items_of(batches(size=1))] == [
        (picture, tags) for picture, tags in names_of().items()
    ]
