"""`tai annotate` from the shell, and its folder in the place of a store or a file of tags."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from tai_engine.encoders.embedded import constants_of, embedded_folder
from tai_engine.review.decisions import Change
from tai_engine.review.journal import Journal, read_decisions

PHOTOGRAPHS = embedded_folder("photos") / "photographs"


def said(outcome):
    return " ".join(outcome.stderr.split())


def refused(outcome, *parts):
    assert outcome.status == 2
    assert outcome.stdout == ""
    for part in parts:
        assert part in said(outcome), said(outcome)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("cat\ndog\nred_panda\n")
    return path


@pytest.fixture
def photos(tmp_path, picture_folder):
    return shutil.copytree(picture_folder, tmp_path / "photos")


@pytest.fixture
def annotated(tai, photos, words, tiny_model, tmp_path):
    """A folder of results of five pictures and three words."""
    out = tmp_path / "results"
    outcome = tai("annotate", photos, "--vocabulary", words, "--out", out, "--model", tiny_model)
    assert outcome.status == 1  # three pictures are broken
    assert f"`tai review {out}`" in outcome.stdout
    assert f"`tai export {out} --to ...`" in outcome.stdout
    assert "3 failed" in said(outcome)
    assert f"`tai info {out} --failed` lists them" in said(outcome)
    return out


def test_every_command_takes_the_folder(tai, annotated, photos, tmp_path):
    assert pq.read_table(annotated / "tags.parquet").num_rows == 15
    assert (annotated / "report" / "index.html").is_file()
    assert tai("info", annotated, "--json").json()[0]["done"] == 5
    assert len(tai("info", annotated, "--failed").stdout.splitlines()) == 3
    assert "The store is sound" in tai("verify", annotated).stdout
    assert tai("compact", annotated).status == 0
    sheet = tmp_path / "found.png"
    assert tai("search", annotated, "a dog", "--top", 2, "--sheet", sheet).status == 0
    assert sheet.is_file()
    # The words are those that were annotated, and any others; no model is named.
    best = tai("explain", "0.png", "--store", annotated, "--out", sheet, "--json").json()
    assert {row["tag"] for row in best} == {"cat", "dog", "red_panda"}
    assert tai("explain", "0.png", "--store", annotated, "--tag", "hat", "--out", sheet, "--json").status == 0
    assert tai("tag", annotated, "--top-k", 1, "--out", tmp_path / "t.parquet").status == 0
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 5
    truth = tmp_path / "truth.jsonl"
    ids = ["0.png", "1.png", "2.png", "sub/3.png", "sub/4.png"]
    truth.write_text(
        "".join(json.dumps({"id": i, "labels": ["dog" if n % 2 else "cat"]}) + "\n" for n, i in enumerate(ids))
    )
    assert 0 <= tai("evaluate", annotated, "--truth", truth, "--json").json()[0]["map"] <= 1
    calibration = tmp_path / "c.json"
    assert tai("calibrate", annotated, "--truth", truth, "--out", calibration).status == 0
    again = tai("annotate", photos, "--out", annotated, "--calibration", calibration, "--json")
    assert (again.json()[0]["encoded"], again.json()[0]["pictures"]) == (0, 5)
    assert all(0 < row["probability"] < 1 for row in pq.read_table(annotated / "tags.parquet").to_pylist())
    shutil.rmtree(annotated / "report")
    assert tai("report", annotated).status == 1  # as there are broken pictures
    assert (annotated / "report" / "index.html").is_file()
    assert tai("export", annotated, "--to", "label-studio", "--out", tmp_path / "tasks").status == 0
    (tasks,) = (tmp_path / "tasks").glob("tasks-*.json")
    assert len(json.loads(tasks.read_text())) == 5
    assert tai("export", annotated, "--to", "coco", "--out", tmp_path / "c").status == 0
    assert json.loads((tmp_path / "c").read_text())["images"][0]["width"] == 50  # the pictures are found
    assert tai("export", annotated, "--to", "xmp").status == 0
    assert len(list(photos.rglob("*.xmp"))) == 5


def review(folder, *arguments):
    code = "import sys; from tai_engine.cli.main import main; main()"
    command = [sys.executable, "-c", code, "review", folder, "--json", "--port", "0", *arguments]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_decisions_stay_when_tags_are_made_anew(tai, annotated, photos, words, tmp_path):
    pytest.importorskip("starlette", reason="needs the extra 'review'")
    journal = annotated / "tags.parquet.decisions.jsonl"
    with closing(Journal(journal, tags_file="t", tags_sha256="0" * 64, by="anna")) as entries:
        entries.decide([Change(("0.png",), add=("hat",))])
    words.write_text("cat\ndog\nowl\n")
    again = tai("annotate", photos, "--vocabulary", words, "--out", annotated)
    assert "What people decided about 1 pictures stays" in again.stdout
    server = review(annotated, "--thumbnail-cache", tmp_path / "cache")
    try:
        started = json.loads(server.stdout.readline())
        assert (started["pictures"], started["journal"]) == (8, str(journal))
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(started["address"])
        facts = json.load(opener.open(f"{started['address'].partition('/?')[0]}/data/facts.json"))
        assert facts["title"] == "results"
        assert facts["heatmaps"] == ["cat", "dog", "owl"]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    assert read_decisions(journal)["0.png"].present == ("hat",)
    exported = tai("export", annotated, "--to", "csv", "--out", tmp_path / "t.csv")
    assert str(journal) in exported.stdout
    assert "0.png,hat,,,,add" in (tmp_path / "t.csv").read_text()


def test_calibrating_by_the_decisions_of_the_folder(tai, annotated, tmp_path):
    out = tmp_path / "c.json"
    refused(tai("calibrate", annotated, "--out", out), "by one of --truth")
    with closing(
        Journal(annotated / "tags.parquet.decisions.jsonl", tags_file="t", tags_sha256="", by="anna")
    ) as entries:
        entries.decide([Change(("0.png",), accept=("dog",)), Change(("1.png",), none=True)])
    found = tai("calibrate", annotated, "--out", out, "--json")
    assert (found.json()[0]["made_from"], found.json()[0]["examples"]) == ("decisions", 2)


def test_mistakes_are_said_before_anything_is_made(tai, photos, words, tiny_model, tmp_path):
    out = tmp_path / "results"
    common = ("annotate", photos, "--out", out, "--model", tiny_model)
    (tmp_path / "bare").mkdir()
    refused(tai("annotate", tmp_path / "bare", "--out", out, "--model", tiny_model), "bare", "no pictures")
    refused(tai("annotate", tmp_path / "nowhere", "--out", out, "--model", tiny_model), "nowhere")
    refused(tai(*common, "--vocabulary", tmp_path / "none.txt"), "none.txt")
    refused(tai(*common, "--vocabulary-column", "name"), "--vocabulary-column is about the words of --vocabulary")
    refused(tai(*common, "--vocabulary", words, "--calibration", tmp_path / "none.json"), "none.json", "no calibration")
    refused(tai(*common, "--vocabulary", words, "--min-precision", 0.9), "--min-precision needs --calibration")
    refused(tai("annotate", photos, "--out", words, "--model", tiny_model), "words.txt", "in the way")
    refused(tai("annotate", photos, "--out", photos / "r", "--model", tiny_model), "lies in the folder of the pictures")
    refused(tai("annotate", photos, "--out", tmp_path, "--model", tiny_model), "exists already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "photos", "words.txt"]


def test_a_folder_of_others_is_left_alone(tai, annotated, photos, words, other_model, picture_folder):
    before = sorted(str(path) for path in annotated.rglob("*"))
    refused(tai("annotate", picture_folder, "--out", annotated), str(photos), str(picture_folder), "--moved")
    refused(tai("annotate", photos, "--out", annotated, "--model", other_model), "were made with", other_model)
    assert sorted(str(path) for path in annotated.rglob("*")) == before


def test_the_same_weights_under_another_name_in_the_store_are_still_checked(tai, annotated, photos, other_model):
    """Whoever edits the record cannot mix two spaces."""
    record = annotated / "annotate.json"
    said_there = json.loads(record.read_text())
    record.write_text(json.dumps({**said_there, "model": other_model}))
    refused(tai("annotate", photos, "--out", annotated), "embedding space")


def test_pictures_that_are_gone(tai, annotated, photos):
    (photos / "0.png").unlink()
    kept = tai("annotate", photos, "--out", annotated)
    assert "1 items of the store are no longer in the source; --delete-missing drops them" in said(kept)
    assert tai("annotate", photos, "--out", annotated, "--delete-missing", "--json").json()[0]["pictures"] == 4


def test_a_folder_that_a_killed_run_left_says_how_to_go_on(tai, annotated, tmp_path):
    (annotated / "tags.parquet").unlink()
    for command in (("review", annotated), ("evaluate", annotated, "--truth", tmp_path), ("report", annotated)):
        refused(tai(*command), "has no file of tags yet", "run the same `tai annotate` again")
    shutil.rmtree(annotated / "features.zarr")
    for command in (("info", annotated), ("verify", annotated), ("search", annotated, "dog")):
        refused(tai(*command), "has no store yet")


def test_files_of_tags_alone_need_their_pictures(tai, annotated, tmp_path):
    refused(tai("review", annotated / "tags.parquet"), "--images")
    refused(tai("report", annotated / "tags.parquet", "--out", tmp_path / "r"), "--images")
    refused(tai("report", annotated / "tags.parquet", "--images", tmp_path), "with --out")


@pytest.mark.slow
def test_an_embedded_model_brings_its_own_least_score(tai, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("pizza.jpg", "plane.jpg"):
        shutil.copy(PHOTOGRAPHS / name, tmp_path / "photos")
    common = ("annotate", tmp_path / "photos", "--model", "photos", "--vocabulary", "coco80", "--no-report")
    assert tai(*common, "--out", tmp_path / "own").status == 0
    rows = pq.read_table(tmp_path / "own" / "tags.parquet").to_pylist()
    best = {row["id"]: row["tag"] for row in reversed(rows)}
    assert best == {"pizza.jpg": "pizza", "plane.jpg": "airplane"}
    least = constants_of("photos").tag_threshold
    assert all(row["score"] >= row["threshold"] == pytest.approx(least) for row in rows)
    assert tai(*common, "--out", tmp_path / "all", "--threshold", -99, "--top-k", 80).status == 0
    assert pq.read_table(tmp_path / "all" / "tags.parquet").num_rows == 160
