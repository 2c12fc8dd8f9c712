"""Each export is read by the program that it is for.

Those programs want other versions of what this project stands on, so that they live in an environment of their own
(`make readers`), named by ``TAI_READERS``; exiftool, exiv2 and darktable are the system's.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lxml import etree
from PIL import Image

from outside_programs import go_without
from tag_samples import PICTURES, PROVENANCE, batches, names_of
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.item_tags import ExportOptions

COCO = """
from pycocotools.coco import COCO
coco = COCO(given)
names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
found = {
    image["file_name"]: [names[a["category_id"]] for a in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))]
    for image in coco.loadImgs(coco.getImgIds())
}
"""
DATUMARO = """
import datumaro
dataset = datumaro.Dataset.import_from(given, "datumaro")
names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
found = {item.id: [names[a.label] for a in item.annotations] for item in dataset}
"""
CVAT = """
import datumaro
dataset = datumaro.Dataset.import_from(given, "cvat")
names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
found = {item.id: [names[a.label] for a in item.annotations] for item in dataset}
"""
LABEL_STUDIO = """
import glob, os
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(open(os.path.join(given, "labelling-config.xml"), encoding="utf-8").read())
interface.validate()
found = {}
for file in sorted(glob.glob(os.path.join(given, "tasks-*.json"))):
    for task in json.load(open(file, encoding="utf-8")):
        assert interface.validate_task({"data": task["data"]})  # with predictions its own call lacks an argument
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction)
        found[task["data"]["id"]] = [c for r in prediction["result"] for c in r["value"]["choices"]]
"""
DATASETS = """
import os
os.environ["HF_HOME"] = cache
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=given, split="train", cache_dir=cache)
found = {str(number): row["tags"] for number, row in enumerate(rows)}
sizes = [row["image"].size for row in rows]
assert all(size == (8, 6) for size in sizes), sizes
"""
FIFTYONE = """
import os
from fiftyone.utils.data.importers import FiftyOneImageClassificationDatasetImporter as Importer
with Importer(data_path=images, labels_path=given) as importer:
    classes = importer.get_dataset_info()["classes"]
    found = {
        os.path.relpath(path, images): [label.label for label in labels.classifications] for path, _, labels in importer
    }
assert all(tag in classes for tags in found.values() for tag in tags)
"""
READERS = {
    "fiftyone": (FIFTYONE, "labels.json"),
    "coco": (COCO, "out.json"),
    "datumaro": (DATUMARO, "out"),
    "cvat": (CVAT, "out.xml"),
    "label-studio": (LABEL_STUDIO, "out"),
}


@pytest.fixture(scope="module")
def reader():
    """Runs code with ``given`` in the environment of the readers; gives its ``found``."""
    python = os.environ.get("TAI_READERS")
    if not python or not Path(python).is_file():
        go_without("the readers of exports", "make readers, and their Python in TAI_READERS")

    def run(code: str, given: Path, cache: Path, images: Path | None = None) -> dict[str, list[str]]:
        places = f"given, cache, images = {str(given)!r}, {str(cache)!r}, {str(images)!r}"
        text = f"import json\n{places}\n{code}\nprint('\\n' + json.dumps(found))"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for name in names_of():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_the_other_side_reads_every_picture_and_tag(tmp_path, reader, images, name):
    code, file = READERS[name]
    exporters.get(name).export(batches(), tmp_path / file, PROVENANCE, ExportOptions(images=images))
    found = reader(code, tmp_path / file, tmp_path / "cache", images)
    expected = names_of()
    if name in ("datumaro", "cvat"):
        expected = {picture.rsplit(".", 1)[0]: tags for picture, tags in expected.items()}
    assert {picture: sorted(tags) for picture, tags in found.items()} == {p: sorted(t) for p, t in expected.items()}


@pytest.mark.slow
def test_hugging_face_reads_the_folder_of_the_pictures(tmp_path, reader, images):
    exporters.get("huggingface").export(batches(), images, PROVENANCE)
    found = reader(DATASETS, images, tmp_path / "cache")
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, names_of().values()))


def need(program: str, package: str) -> None:
    if not shutil.which(program):
        go_without(program, f"apt-get install {package}")


def test_exiftool_reads_the_sidecars(tmp_path):
    need("exiftool", "libimage-exiftool-perl")
    exporters.get("xmp").export(batches(), tmp_path, PROVENANCE)
    for name, tags in names_of(PICTURES).items():
        done = subprocess.run(
            ["exiftool", "-j", "-Subject", "-HierarchicalSubject", "-TagsList", "-a", f"{name}.xmp"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        (found,) = json.loads(done.stdout)
        assert as_list(found["Subject"]) == tags
        assert as_list(found["HierarchicalSubject"]) == [tag.replace("|", "/") for tag in tags]
        assert as_list(found["TagsList"]) == [tag.replace("/", "|") for tag in tags]


def test_keywords_that_exiftool_wrote_stay(tmp_path):
    need("exiftool", "libimage-exiftool-perl")
    subprocess.run(["exiftool", "-q", "-Subject=Anna", "a.jpg.xmp"], check=True, cwd=tmp_path)
    exporters.get("xmp").export(batches(PICTURES[:1]), tmp_path, PROVENANCE)
    done = subprocess.run(["exiftool", "-j", "-Subject", "a.jpg.xmp"], capture_output=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)[0]["Subject"] == ["Anna", "dog", "traffic light"]


def test_exiv2_reads_the_sidecars(tmp_path):
    need("exiv2", "exiv2")
    exporters.get("xmp").export(batches(), tmp_path, PROVENANCE)
    done = subprocess.run(["exiv2", "-PXkyv", "a.jpg.xmp"], capture_output=True, text=True, check=True, cwd=tmp_path)
    found = {line.split()[0]: " ".join(line.split()[2:]) for line in done.stdout.splitlines()}
    assert found["Xmp.dc.subject"] == "dog, traffic light"
    assert found["Xmp.lr.hierarchicalSubject"] == "dog, traffic light"
    assert found["Xmp.digiKam.TagsList"] == "dog, traffic light"


@pytest.mark.slow
def test_darktable_takes_the_tags_of_the_sidecars(tmp_path):
    """It reads a picture with its sidecar, and writes the tags that it then knows into what it develops."""
    need("darktable-cli", "darktable")
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.jpg")
    exporters.get("xmp").export(batches(PICTURES[:1]), tmp_path, PROVENANCE)
    own = ["--core", "--configdir", "config", "--cachedir", "cache", "--library", ":memory:"]
    command = ["darktable-cli", "a.jpg", "a.jpg.xmp", "out.jpg", *own]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    _, start, rest = (tmp_path / "out.jpg").read_bytes().partition(b"<x:xmpmeta")
    packet, end, _ = rest.partition(b"</x:xmpmeta>")
    subject = etree.fromstring(start + packet + end).find(".//{http://purl.org/dc/elements/1.1/}subject")
    assert [entry.text for entry in subject.iter("{*}li")] == ["dog", "traffic light"]


def as_list(value: object) -> list[str]:
    return value if isinstance(value, list) else [str(value)]
