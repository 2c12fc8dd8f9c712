"""`tai cache images` on a collection that changes."""

import os
import shutil

import pytest
import torch
from PIL import Image

from tai_engine.store import FeatureStore


@pytest.fixture
def collection(tai, tiny_model, picture_folder, tmp_path):
    """A folder that may be changed, its store, and the command that brings it up to date."""
    folder, store = tmp_path / "pictures", tmp_path / "s.zarr"
    shutil.copytree(picture_folder, folder)
    (folder / "empty.jpg").unlink()
    (folder / "truncated.png").unlink()

    def update(*options):
        return tai("cache", "images", folder, store, "--model", tiny_model, *options)

    assert update().status == 1  # broken.jpg
    return folder, store, update


def test_changes_are_found_and_said(collection):
    folder, store, update = collection
    Image.new("RGB", (60, 50), "red").save(folder / "1.png")
    Image.new("RGB", (60, 50), "blue").save(folder / "9.png")
    (folder / "2.png").unlink()
    outcome = update()
    assert outcome.status == 0
    assert "2 pictures encoded" in outcome.stdout
    assert "1 new, 1 changed.\n4 were in the store already." in outcome.stdout
    for stage in ("read", "decode", "encode", "write"):
        assert f"{stage} " in outcome.stdout.partition("Seconds per stage: ")[2]
    assert "1 items of the store are no longer in the source; --delete-missing drops them." in outcome.stderr
    report = update("--delete-missing", "--json").json()[0]
    assert {name: report[name] for name in ("new", "changed", "retried", "missing", "deleted", "skipped")} == {
        "new": 0, "changed": 0, "retried": 0, "missing": 1, "deleted": 1, "skipped": 6,
    }  # fmt: skip
    assert set(report["stage_seconds"]) == {"read", "decode", "transfer", "encode", "write", "wait"}
    live = {item.id: item.status for item in FeatureStore.open(store).ledger()}
    assert sorted(live) == ["0.png", "1.png", "9.png", "broken.jpg", "sub/3.png", "sub/4.png"]


def test_failed_ones_are_tried_again_on_request(collection):
    folder, store, update = collection
    assert update().status == 0
    outcome = update("--retry-failed")
    assert outcome.status == 1
    assert "1 tried again." in outcome.stdout
    found = (folder / "broken.jpg").stat()
    Image.new("RGB", (60, 50), "red").save(folder / "broken.jpg")
    os.utime(folder / "broken.jpg", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert update("--check", "content", "--json").json()[0]["changed"] == 1
    assert FeatureStore.open(store).counts() == {"done": 6, "failed": 0}


def test_options_that_do_not_fit_are_said(collection, tai, tiny_model):
    folder, store, update = collection
    outcome = update("--check", "contents")
    assert outcome.status == 2
    assert "Unknown check for changes 'contents'; did you mean 'content'?" in outcome.stderr
    outcome = update("--draft")  # another recipe
    assert outcome.status == 2
    assert "a store holds one recipe" in outcome.stderr
    outcome = tai("cache", "images", folder, f"{store}-draft", "--model", tiny_model, "--draft")
    assert outcome.status == 1
    assert FeatureStore.open(f"{store}-draft").spec.recipe["decoding"]["draft"] == 1.5


def test_int8_rows(collection, tai, tiny_model):
    folder, store, _ = collection
    outcome = tai("cache", "images", folder, f"{store}-8", "--model", tiny_model, "--rows", "int8")
    assert outcome.status == 1
    found, whole = FeatureStore.open(f"{store}-8"), FeatureStore.open(store)
    assert found.spec.row_dtype == "int8"
    assert found.counts() == whole.counts() == {"done": 5, "failed": 1}
    narrow, rows = found.read_group(0), whole.read_group(0).to("cpu", torch.float32).fine
    # The scale makes a row's largest number 127, so that no number is off by more than half of it and fp16's rounding.
    off = (narrow.to("cpu", torch.float32).fine - rows).abs()
    assert bool((off <= 0.5 * narrow.fine_scales[:, None] + 2**-11).all())


def test_another_folder_is_another_source(tai, tiny_model, tmp_path):
    for camera, colour in (("cam1", "red"), ("cam2", "blue")):
        (tmp_path / camera).mkdir()
        for number in range(2):
            Image.new("RGB", (60, 50), colour).save(tmp_path / camera / f"IMG_{number}.png")
    store = tmp_path / "s.zarr"

    def cache(camera, *options):
        return tai("cache", "images", tmp_path / camera, store, "--model", tiny_model, *options)

    assert cache("cam1").status == 0
    refused = cache("cam2")
    assert refused.status == 2
    for words in (f"{tmp_path}/cam1", f"{tmp_path}/cam2", "--id-prefix cam2/", "--moved"):
        assert words in refused.stderr
    assert cache("cam2", "--id-prefix", "cam2/").status == 0
    assert sorted(item.id for item in FeatureStore.open(store).ledger()) == [
        "IMG_0.png", "IMG_1.png", "cam2/IMG_0.png", "cam2/IMG_1.png",
    ]  # fmt: skip
    # Another spelling of the same place is the same place.
    assert cache("cam2/../cam1").status == 0
    (tmp_path / "cam1").rename(tmp_path / "camera-one")
    assert cache("camera-one").status == 2
    assert cache("camera-one", "--moved").status == 0
    assert cache("camera-one").status == 0


def test_a_drive_that_is_not_mounted_is_not_deleted(tai, tiny_model, tmp_path):
    photos, store = tmp_path / "photos", tmp_path / "s.zarr"
    (photos / "nas").mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (60, 50), (number, 0, 0)).save(photos / f"{number}.png")
    Image.new("RGB", (60, 50), "blue").save(photos / "nas" / "b.png")

    def cache(*options):
        return tai("cache", "images", photos, store, "--model", tiny_model, *options)

    assert cache().status == 0
    shutil.move(photos / "nas", tmp_path / "elsewhere")
    (photos / "nas").mkdir()
    outcome = cache("--delete-missing")
    assert outcome.status == 2
    assert "none was deleted, since the folder nas/ is empty now" in outcome.stderr
    (photos / "nas").rmdir()
    (photos / "nas").symlink_to("not-mounted")
    outcome = cache("--delete-missing", "--delete-many")
    assert (outcome.status, FeatureStore.open(store).counts()["done"]) == (2, 9)
    assert "parts of the source could not be read" in outcome.stderr
    (photos / "nas").unlink()
    assert cache("--delete-missing").status == 0
    assert FeatureStore.open(store).counts()["done"] == 8
    for number in range(5):
        (photos / f"{number}.png").unlink()
    outcome = cache("--delete-missing")
    assert outcome.status == 2
    assert "none was deleted, since 5 of 8 is more than 20%" in outcome.stderr
    assert FeatureStore.open(store).counts()["done"] == 8
    assert cache("--delete-many").status == 0
    assert FeatureStore.open(store).counts()["done"] == 3
