"""A folder of results belongs to one collection and one model, and every name in it has one place."""

import json
from pathlib import Path

import pytest

from feature_samples import small_spec
from tai_engine.annotating.results_folder import RECORD, AnnotatedPictures, ResultsFolder
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore

DEFAULT = ("RN50", "openai")


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    return str(tmp_path / "photos")


def to_fill(out, images, model=None, pretrained=None, **options):
    return ResultsFolder.to_fill(out, images, model, pretrained, DEFAULT, **options)


def test_a_new_folder_appears_with_its_record_and_comes_back(tmp_path, photos):
    folder = to_fill(tmp_path / "deep" / "r", photos)
    assert not (tmp_path / "deep").exists()
    folder.save()
    assert [path.name for path in folder.path.iterdir()] == [RECORD]
    assert ResultsFolder.at(tmp_path / "deep" / "r") == folder
    assert folder.about == AnnotatedPictures(photos, "RN50", "openai")
    assert (folder.title, folder.picture_folder) == ("r", Path(photos))
    folder.save()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r"]


def test_other_things_are_no_results(tmp_path):
    FeatureStore.create(tmp_path / "s.zarr", small_spec())
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "s.zarr", tmp_path / "file", "s3://bucket/results", tmp_path / ("n" * 300)):
        assert ResultsFolder.at(place) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no record"),
        ("[]", "'tai-engine results'"),
        ('{"format": "tai-engine results", "version": 2}', "version 2, and this program reads 1"),
        ('{"format": "tai-engine results", "version": 1}', "it lacks 'images'"),
        ('{"format": "tai-engine results", "version": 1, "images": 1, "model": "", "pretrained": ""}', "no text"),
        ('"' + "x" * 2_000_000, "bytes"),
    ],
)
def test_a_damaged_record_is_said(tmp_path, text, said):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match=said):
        ResultsFolder.at(tmp_path)


def test_a_folder_of_other_pictures_names_both(tmp_path, photos):
    to_fill(tmp_path / "r", photos).save()
    other = str(tmp_path / "holiday")
    with pytest.raises(UserError, match=r"of the pictures in '.*photos', not of '.*holiday'.*--moved"):
        to_fill(tmp_path / "r", other)
    assert to_fill(tmp_path / "r", other, has_moved=True).about.images == other


def test_the_model_stays_once_there_are_features(tmp_path, photos):
    folder = to_fill(tmp_path / "r", photos, "ViT-B-32", "laion2b")
    folder.save()
    assert to_fill(tmp_path / "r", photos).about == folder.about
    # Weights that could not be had leave a folder without features, where another model does no harm.
    assert to_fill(tmp_path / "r", photos, "RN50", "openai").about.model == "RN50"
    FeatureStore.create(folder.store, small_spec())
    for model, pretrained in (("RN50", "openai"), ("ViT-B-32", "openai"), (None, "openai")):
        with pytest.raises(UserError, match=r"made with 'ViT-B-32' 'laion2b', not with .*--out"):
            to_fill(tmp_path / "r", photos, model, pretrained)
    assert to_fill(tmp_path / "r", photos, "ViT-B-32").about == folder.about


def test_a_model_in_a_folder_is_found_from_anywhere(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    about = to_fill("r", photos, "local-dir:m").about
    assert (about.model, about.pretrained) == (f"local-dir:{tmp_path / 'm'}", "")
    assert to_fill("r", photos, f"local-dir:{tmp_path}/m/").about == about


def test_places_that_are_taken(tmp_path, photos):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="a file of that name is in the way"):
        to_fill(tmp_path / "file", photos)
    (tmp_path / "mine").mkdir()
    to_fill(tmp_path / "mine", photos)  # an empty folder will do
    (tmp_path / "mine" / "letter").touch()
    with pytest.raises(UserError, match=r"'.*mine' exists already"):
        to_fill(tmp_path / "mine", photos)


def test_results_among_the_pictures_would_be_taken_for_some(tmp_path, photos):
    for out in (photos, f"{photos}/results", f"{photos}/../photos/deep/er"):
        with pytest.raises(UserError, match="lies in the folder of the pictures"):
            to_fill(out, photos)
    assert to_fill(f"{photos}-results", photos).path == Path(f"{photos}-results")


def test_pictures_of_lists_and_addresses_have_no_folder(tmp_path):
    for images in (str(tmp_path / "list.jsonl"), "s3://bucket/photos", str(tmp_path / "{0..9}.tar")):
        assert to_fill(tmp_path / "r", images).picture_folder is None


def test_names_that_are_no_text_come_back(tmp_path):
    images = "/photos/\udcff"
    to_fill(tmp_path / "r", images).save()
    assert ResultsFolder.at(tmp_path / "r").about.images == images
    assert json.loads((tmp_path / "r" / RECORD).read_text())["version"] == 1
