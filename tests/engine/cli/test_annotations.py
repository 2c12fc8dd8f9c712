"""From a store to probabilities and exports, from the shell."""

import json

import pyarrow.parquet as pq
import pytest

from review_samples import write_pictures, write_tags
from tai_engine.store import FeatureStore


@pytest.fixture
def labelled(filled_store, tmp_path):
    """Labels of the five pictures: half of them dogs, a cat for all that a tiny model can tell."""
    ids = sorted(item.id for item in FeatureStore.open(filled_store).items(0) if item.status == "done")
    path = tmp_path / "truth.jsonl"
    path.write_text(
        "".join(json.dumps({"id": name, "labels": ["dog"] if n % 2 else ["cat"]}) + "\n" for n, name in enumerate(ids))
    )
    words = tmp_path / "words.txt"
    words.write_text("dog\ncat\nred_panda\n")
    return path, words


def test_calibrate_tag_and_export(tai, filled_store, labelled, tmp_path):
    truth, words = labelled
    calibration, tags = tmp_path / "c.json", tmp_path / "tags.parquet"
    common = (filled_store, "--vocabulary", words)
    outcome = tai("calibrate", *common, "--truth", truth, "--out", calibration, "--report", tmp_path / "r", "--json")
    assert outcome.status == 0
    assert outcome.json()[0]["examples"] == 5
    assert {p["kept"] for p in outcome.json()[0]["promises"]} == {0}  # five pictures promise nothing
    assert (tmp_path / "r" / "reliability.png").is_file()
    assert tai("tag", *common, "--calibration", calibration, "--out", tags).status == 0
    rows = pq.read_table(tags).to_pylist()
    assert len(rows) == 15
    assert all(0 < row["probability"] < 1 for row in rows)
    promised = tai("tag", *common, "--calibration", calibration, "--min-precision", 0.9, "--out", tags)
    assert promised.status == 0
    assert pq.read_table(tags).num_rows == 0
    never = tmp_path / "never.txt"
    never.write_text("dog\n")
    assert tai("tag", *common, "--never", never, "--always-top", 1, "--threshold", 99, "--out", tags).status == 0
    rows = pq.read_table(tags).to_pylist()
    assert len(rows) == 5
    assert {row["tag"] for row in rows} <= {"cat", "red_panda"}
    exported = tai("export", tags, "--to", "coco", "--out", tmp_path / "coco.json", "--json")
    assert exported.json() == [{"format": "coco", "tags": 5, "out": str(tmp_path / "coco.json"), "decisions": None}]
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 5
    sidecars = tai("export", tags, "--to", "xmp", "--out", tmp_path / "xmp")
    assert sidecars.status == 0
    assert len(list((tmp_path / "xmp").rglob("*.xmp"))) == 5
    listed = tai("export", "--formats")
    assert "label-studio" in listed.stdout


def test_labels_that_tell_nothing_are_said(tai, filled_store, labelled, tmp_path):
    truth, words = labelled
    ids = [json.loads(line)["id"] for line in truth.read_text().splitlines()]
    command = ("calibrate", filled_store, "--vocabulary", words, "--truth", truth, "--out", tmp_path / "c.json")
    for names, labels, said in (
        (ids, ["cat", "dog", "red_panda"], "none lacks any of the tags"),
        (ids, [], "none has any of the tags"),
        (["elsewhere.png"], ["cat"], "None of the 1 labelled pictures (first 'elsewhere.png') is in the store"),
    ):
        truth.write_text("".join(json.dumps({"id": name, "labels": labels}) + "\n" for name in names))
        outcome = tai(*command)
        assert outcome.status == 2
        assert said in " ".join(outcome.stderr.split())
    assert not (tmp_path / "c.json").exists()
    truth.write_text(
        "".join(json.dumps({"id": name, "labels": ["cat"] * (n == 0)}) + "\n" for n, name in enumerate(ids))
    )
    outcome = tai(*command)  # one positive, and tags without any
    assert outcome.status == 0
    assert "needed to show it" in " ".join(outcome.stdout.split())
    assert "no labelled picture has it" in " ".join(outcome.stdout.split())
    assert "Too few labelled pictures to hold some out" in outcome.stderr


def test_a_calibration_of_another_normalisation_is_refused(tai, filled_store, labelled, tmp_path):
    truth, _ = labelled
    calibration, tags = tmp_path / "c.json", tmp_path / "t.parquet"
    common = (filled_store, "--vocabulary", "voc20")
    assert tai("calibrate", *common, "--truth", truth, "--out", calibration).status == 0
    outcome = tai("tag", *common, "--calibration", calibration, "--normalise", "centre", "--out", tags)
    assert outcome.status == 2
    assert "normalise is 'standard' there and 'centre' here" in " ".join(outcome.stderr.split())
    said = calibration.read_text()
    calibration.write_text(said.replace('"intercept": ', '"intercept": NaN, "was": ', 1))
    outcome = tai("tag", *common, "--calibration", calibration, "--out", tags)
    assert outcome.status == 2
    assert "is not a calibration that `tai calibrate` made" in outcome.stderr
    assert not tags.exists()


def test_tags_that_are_no_numbers_are_refused(tai, tmp_path):
    tags = write_tags(tmp_path / "tags.parquet", [("a.jpg", "dog", float("nan"))])
    pictures = write_pictures(tmp_path / "p", ["a.jpg"])
    for command in (
        ("export", tags, "--to", "csv", "--out", tmp_path / "x"),
        ("report", tags, "--images", pictures, "--out", tmp_path / "x"),
        ("review", tags, "--images", pictures, "--port", 0),
    ):
        outcome = tai(*command)
        assert outcome.status == 2
        assert "tags.parquet" in outcome.stderr
        assert not (tmp_path / "x").exists()


def test_mistakes_are_said(tai, filled_store, labelled, tmp_path):
    truth, words = labelled
    common = ("calibrate", filled_store, "--out", tmp_path / "c.json")
    for arguments, said in (
        (("--vocabulary", words), "one of --truth, --decisions, --sentences and --rates"),
        (("--vocabulary", words, "--truth", truth, "--rates", truth), "--truth and --rates were given"),
        (("--truth", truth), "Say what is tagged"),
        (("--vocabulary", words, "--truth", truth, "--promise", "precision"), "written like precision=0.9"),
        (("--vocabulary", words, "--truth", truth, "--promise", "accuracy=0.9"), "Unknown goal 'accuracy'"),
    ):
        outcome = tai(*common, *arguments)
        assert outcome.status == 2
        assert said in outcome.stderr
    assert not (tmp_path / "c.json").exists()
    tags = tmp_path / "tags.parquet"
    tag = ("tag", filled_store, "--vocabulary", words, "--out", tags)
    assert "--min-precision needs --calibration" in tai(*tag, "--min-precision", 0.9).stderr
    assert "--min-probability needs --calibration" in tai(*tag, "--min-probability", 0.5).stderr
    assert "must lie between 0 and 1" in tai(*tag, "--min-probability", 1.5).stderr
    assert tai(*common, "--vocabulary", words, "--truth", truth).status == 0
    other = tmp_path / "other.txt"
    other.write_text("bird\n")
    refused = tai("tag", filled_store, "--vocabulary", other, "--calibration", tmp_path / "c.json", "--out", tags)
    assert refused.status == 2
    assert "for other prompts" in refused.stderr
    refused = tai(*tag, "--calibration", tmp_path / "c.json", "--score", "coarse")
    assert "for other scores: which is 'merged' there and 'coarse' here" in refused.stderr
    assert not tags.exists()
    for arguments, said in (
        ((), "Name the file of tags"),
        ((tags, "--to", "yolo-cls", "--out", tmp_path / "x"), "one class a picture"),
        ((tags, "--to", "coco", "--out", tmp_path / "x"), "no file of tags at"),
        ((tags, "--to", "coco"), "Say where to write"),
        ((tags, "--to", "xmp"), "Say where sidecars go"),
        ((tags, "--to", "yaml", "--out", tmp_path / "x"), "Unknown export format"),
    ):
        outcome = tai("export", *arguments)
        assert outcome.status == 2
        assert said in outcome.stderr
