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
