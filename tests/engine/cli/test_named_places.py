"""No result replaces what it is made of, or lies in a store; and an address is no folder called ``s3:``."""

import json
import shutil
from pathlib import Path

import pytest

from tai_engine.cli import options

WORDS = ("--vocabulary", "words.txt")


@pytest.fixture
def here(tmp_path, filled_store, monkeypatch):
    """A folder with a store and what commands read beside it; loading a model is work that is not begun."""
    shutil.copytree(filled_store, tmp_path / "s.zarr")
    for name in ("words.txt", "truth.jsonl", "tags.parquet", "tags.jsonl", "tags.jsonl.provenance.json"):
        (tmp_path / name).write_text("kept")
    (tmp_path / "tags.parquet.decisions.jsonl").write_text("decided")
    (tmp_path / "link.parquet").symlink_to("tags.parquet")
    monkeypatch.setattr(options, "open_encoder", lambda *_a, **_o: pytest.fail("the work was begun"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("tag", "s.zarr", *WORDS, "--out", "s.zarr/tags.csv"),
            "--out is 's.zarr/tags.csv', which lies in the store '",
        ),
        (("tag", "s.zarr", *WORDS, "--out", "s.zarr/coarse/tags.csv"), "s.zarr': only its own files may be there"),
        (("tag", "s.zarr", *WORDS, "--format", "csv", "--out", "words.txt"), "which is what is read for --vocabulary"),
        (("calibrate", "s.zarr", *WORDS, "--truth", "truth.jsonl", "--out", "truth.jsonl"), "is read for --truth"),
        (("calibrate", "s.zarr", *WORDS, "--truth", "truth.jsonl", "--out", "c.json", "--report", "s.zarr"), "lies in"),
        (("tune", "s.zarr", *WORDS, "--out", "words.txt"), "which is what is read for --vocabulary"),
        (("tune", "s.zarr", *WORDS, "--out", "p.safetensors", "--run", "s.zarr/run"), "--run is 's.zarr/run'"),
        (
            ("export", "tags.parquet", "--out", "tags.parquet"),
            "--out is 'tags.parquet', which is what is read for TAGS",
        ),
        (("export", "tags.parquet", "--out", "link.parquet"), "which is what is read for TAGS"),
        (
            ("export", "tags.parquet", "--to", "csv", "--out", "tags.parquet.decisions.jsonl"),
            "the journal of decisions",
        ),
        (("export", "tags.jsonl", "--to", "csv", "--out", "tags.jsonl.provenance.json"), "the provenance of TAGS"),
        (("export", "tags.parquet", "--to", "xmp", "--images", ".", "--out", "s.zarr"), "lies in the store"),
        (("ensemble", "tags.parquet", "tags.jsonl", "--out", "tags.jsonl"), "which is what is read for SECOND"),
        (("search", "s.zarr", "a dog", "--images", ".", "--sheet", "s.zarr/a.png"), "--sheet is 's.zarr/a.png'"),
        (("explain", "0.png", "--store", "s.zarr", "--out", "s.zarr/a.png"), "--out is 's.zarr/a.png'"),
        (("report", "tags.parquet", "--images", ".", "--out", "s.zarr/report"), "lies in the store"),
        (("review", "tags.parquet", "--images", ".", "--journal", "tags.parquet"), "--journal is 'tags.parquet'"),
        (("cache", "images", ".", "s.zarr/in", "--model", "demo"), "STORE is 's.zarr/in', which lies in the store"),
        (("cache", "texts", "words.txt", "words.txt", "--model", "demo"), "which is what is read for FILES"),
        (("annotate", ".", "--model", "demo", "--out", "s.zarr/results"), "lies in the store"),
        (("demo", "--out", "s.zarr/demo"), "lies in the store"),
    ],
)
def test_results_that_would_replace_what_is_read(arguments, message, tai, here):
    before = content(here)
    outcome = tai(*arguments)
    assert outcome.status == 2
    assert message in outcome.stderr
    assert outcome.stderr.rstrip().endswith("name another place.")
    assert content(here) == before


@pytest.mark.parametrize("command", ["search", "explain"])
def test_a_drawing_replaces_no_picture_of_the_store(command, tai, here, picture_folder):
    pictures = here / "pictures"
    shutil.copytree(picture_folder, pictures)
    picture = next(path for path in sorted(pictures.rglob("*")) if path.suffix in (".png", ".jpg"))
    item = str(picture.relative_to(pictures))
    arguments = {
        "search": ("search", "s.zarr", "a dog", "--images", pictures, "--sheet", picture),
        "explain": ("explain", item, "--store", "s.zarr", "--images", pictures, *WORDS, "--out", picture),
    }
    outcome = tai(*arguments[command])
    assert outcome.status == 2
    assert f"is '{picture}', which is a picture of the store s.zarr: name another place." in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("export", "s3://b/tags.parquet", "--to", "csv", "--out", "a.csv"),
            "TAGS is the address 's3://b/tags.parquet'",
        ),
        (("export", "tags.parquet", "--to", "csv", "--out", "s3://b/a.csv"), "--out is the address 's3://b/a.csv'"),
        (("evaluate", "https://h.invalid/t", "--truth", "truth.jsonl"), "TAGS is the address 'https://h.invalid/t'"),
        (("tag", "s.zarr", "--prompts", "gs://b/p", "--out", "a.csv"), "--prompts is the address 'gs://b/p'"),
        (
            ("cache", "texts", "words.txt", "s3://b/t.txt", "s", "--model", "demo"),
            "FILES is the address 's3://b/t.txt'",
        ),
        (("demo", "--out", "s3://b/demo"), "--out is the address 's3://b/demo'"),
    ],
)
def test_addresses_where_files_are_meant(arguments, message, tai, here):
    outcome = tai(*arguments)
    assert outcome.status == 2
    assert f"{message}, and has to be a file or folder of this machine: copy it." in outcome.stderr
    assert not [path for path in here.iterdir() if path.name.endswith(":")]


def test_an_address_of_this_machine_is_its_path(tai, here):
    """What is wrong with the file is said, not that it is an address."""
    outcome = tai("evaluate", f"file://{here}/none.parquet", "--truth", f"file://{here}/truth.jsonl")
    assert outcome.status == 2
    assert f"There is no file of tags at '{here}/none.parquet'" in outcome.stderr


def test_results_beside_what_is_read(tai, here, tiny_model):
    """A new name, an older result, and sidecars among the pictures are all well."""
    (here / "w.json").write_text(json.dumps(["a dog", "a cat"]))
    arguments = ("tag", here / "s.zarr", "--vocabulary", "w.json", "--out", "new.csv", "--model", tiny_model)
    with pytest.raises(pytest.fail.Exception, match="the work was begun"):
        tai(*arguments)
    Path("new.csv").write_text("older")
    with pytest.raises(pytest.fail.Exception, match="the work was begun"):
        tai(*arguments)
