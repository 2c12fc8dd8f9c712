"""From pictures to tags through the commands, on a tiny model with random weights."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tai_engine.store import FeatureStore

GOOD = {"0.png", "1.png", "2.png", "sub/3.png", "sub/4.png"}
BAD = {"broken.jpg", "empty.jpg", "truncated.png"}


def write_words(path: Path) -> Path:
    path.write_text("cat\ndog\nred bus\n")
    return path


def test_caching_enters_every_file_as_done_or_failed(tai, picture_folder, tiny_model, tmp_path):
    store = tmp_path / "s.zarr"
    first = tai("cache", "images", picture_folder, store, "--model", tiny_model, "--json")
    assert first.status == 1
    report = first.json()[0]
    assert (report["items"], report["done"], report["failed"], report["skipped"]) == (8, 5, 3, 0)
    assert "3 failed" in first.stderr
    ledger = {entry.id: entry.status for entry in FeatureStore.open(store).ledger()}
    assert {name for name, status in ledger.items() if status == "done"} == GOOD
    assert {name for name, status in ledger.items() if status == "failed"} == {
        "broken.jpg",
        "empty.jpg",
        "truncated.png",
    }
    again = tai("cache", "images", picture_folder, store, "--model", tiny_model, "--json")
    assert again.status == 0  # nothing failed in this run: there was nothing to do
    assert (again.json()[0]["skipped"], again.json()[0]["done"]) == (8, 0)


def test_info_counts_and_lists_the_failures(tai, filled_store):
    facts = tai("info", filled_store, "--json").json()[0]
    assert (facts["done"], facts["failed"], facts["kind"], facts["fine_features"]) == (5, 3, "images", True)
    failed = {row["id"]: row["reason"] for row in tai("info", filled_store, "--failed", "--json").json()}
    assert set(failed) == BAD
    assert failed["empty.jpg"].startswith("empty")
    assert "empty.jpg" in tai("info", filled_store, "--failed").stdout


def test_tagging_and_evaluating(tai, filled_store, tmp_path):
    words, tags = write_words(tmp_path / "words.txt"), tmp_path / "tags.parquet"
    outcome = tai("tag", filled_store, "--vocabulary", words, "--out", tags, "--json")
    assert outcome.status == 0
    assert outcome.json()[0]["tags"] == 15
    rows = pq.read_table(tags).to_pylist()
    assert {r["id"] for r in rows} == GOOD
    assert {r["tag"] for r in rows} == {"cat", "dog", "red bus"}
    # The truth is made of the best tag of each picture, so every class in it has an average precision of its own rank.
    best = {}
    for row in rows:
        best.setdefault(row["id"], row["tag"])
    truth = tmp_path / "truth.jsonl"
    truth.write_text("".join(json.dumps({"file_name": n, "labels": [t]}) + "\n" for n, t in best.items()))
    result = tai("evaluate", tags, "--truth", truth, "--json").json()[0]
    assert result["items"] == 5
    for name, entry in result["classes"].items():
        ranked = sorted((r for r in rows if r["tag"] == name), key=lambda r: -r["score"])
        hits = [rank for rank, row in enumerate(ranked, 1) if best[row["id"]] == name]
        expected = sum((i + 1) / rank for i, rank in enumerate(hits)) / len(hits)
        assert entry["ap"] == pytest.approx(expected)
        assert entry["positives"] == len(hits)
    assert "mAP" in tai("evaluate", tags, "--truth", truth).stdout
    # The best tag of each picture is its only one, so it is right everywhere.
    groups = tmp_path / "groups.toml"
    groups.write_text('pets = ["cat", "dog"]\n')
    arguments = ("evaluate", tags, "--truth", truth, "--top-k", 1, "--splits", groups)
    result = tai(*arguments, "--json").json()[0]
    assert result["tags"]["overall_f1"] == result["coverage"] == 1.0
    assert result["groups"]["pets"]["classes"] == 2
    text = tai(*arguments).stdout
    assert "OF1 100.00 %" in text
    assert "Groups of classes" in text
    # The same pictures tagged by the fine scores alone.
    other = tmp_path / "fine.parquet"
    tai("tag", filled_store, "--vocabulary", words, "--out", other, "--score", "fine")
    arguments = ("compare", tags, other, "--truth", truth, "--draws", 50, "--top-k", 1)
    found = tai(*arguments, "--json").json()[0]
    assert found["map"]["first"]["value"] == pytest.approx(result["map"])
    fine = tai("evaluate", other, "--truth", truth, "--json").json()[0]["map"]
    assert found["map"]["difference"]["value"] == pytest.approx(fine - result["map"])
    assert (found["items"], found["draws"], found["of1"]["first"]["value"]) == (5, 50, 1.0)
    lines = tai(*arguments).stdout
    assert "5 pictures in common; 50 draws" in lines
    assert "OF1: first 100.00 (100.00 to 100.00)" in lines
    refused = tai("compare", tags, tmp_path / "none.parquet", "--truth", truth)
    assert refused.status == 2
    assert "none.parquet" in refused.stderr


def test_options_reach_the_scores(tai, filled_store, tmp_path):
    words = write_words(tmp_path / "words.txt")

    def tagged(*options):
        out = tmp_path / "t.parquet"
        assert tai("tag", filled_store, "--vocabulary", words, "--out", out, *options).status == 0
        return pq.read_table(out).to_pylist(), pq.read_schema(out).metadata

    rows, metadata = tagged("--score", "fine", "--pooling", "max", "--top-k", "1")
    assert len(rows) == 5
    settings = json.loads(metadata[b"tai_engine.scoring"])
    assert (settings["which"], settings["pooling"], settings["normalise"]) == ("fine", "max", "none")
    rows, metadata = tagged("--template", "a {}.", "--template", "the {}", "--threshold", "1000")
    assert rows == []
    assert json.loads(json.loads(metadata[b"tai_engine.prompts"])["templates"]) == ["a {}.", "the {}"]
    _, metadata = tagged("--template", "imagenet80")
    assert len(json.loads(json.loads(metadata[b"tai_engine.prompts"])["templates"])) == 80


def test_scores_are_standardised_unless_words_are_few(tai, filled_store, tmp_path):
    few, many, out = tmp_path / "few.txt", tmp_path / "many.txt", tmp_path / "t.parquet"
    few.write_text("".join(f"word{n}\n" for n in range(19)))
    many.write_text("".join(f"word{n}\n" for n in range(20)))

    def scores_of(words, *options):
        outcome = tai("tag", filled_store, "--vocabulary", words, "--out", out, *options)
        assert outcome.status == 0
        found = {}
        for row in pq.read_table(out).to_pylist():
            found.setdefault(row["id"], []).append(row["score"])
        how = json.loads(pq.read_schema(out).metadata[b"tai_engine.scoring"])["normalise"]
        return torch.tensor(list(found.values())), how, outcome.stderr

    standard, how, said = scores_of(many)
    assert (how, "normalised" in said) == ("standard", False)
    assert torch.allclose(standard.mean(dim=1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(standard.std(dim=1), torch.ones(5), atol=1e-5)
    raw, how, _ = scores_of(many, "--normalise", "none")
    assert how == "none"
    assert torch.allclose((raw - raw.mean(dim=1, keepdim=True)) / raw.std(dim=1, keepdim=True), standard, atol=1e-4)
    plain, how, said = scores_of(few)
    assert how == "none"
    assert "Scores are not normalised (standard): with 19 words it cannot help" in " ".join(said.split())
    assert float(plain.mean()) != pytest.approx(0, abs=1e-3)
    kept, _, _ = scores_of(many, "--threshold", "1.0")
    assert kept.flatten().tolist() == [] or float(kept.min()) >= 1.0
    refused = tai("tag", filled_store, "--vocabulary", many, "--out", out, "--normalise", "centred")
    assert refused.status == 2
    assert "Unknown normalisation 'centred'; did you mean 'centre'?" in " ".join(refused.stderr.split())


def test_places_for_tags_are_checked_before_the_work(tai, filled_store, tmp_path):
    """Before the model is loaded: the one that is named here is not there."""
    words = write_words(tmp_path / "words.txt")

    def refused(out):
        outcome = tai("tag", filled_store, "--vocabulary", words, "--out", out, "--model", "local-dir:/not/there")
        assert outcome.status == 2
        return " ".join(outcome.stderr.split())

    (tmp_path / "folder.parquet").mkdir()
    assert "it is a folder; give the name of a file" in refused(tmp_path / "folder.parquet")
    assert "a part of the path is a file" in refused(words / "t.parquet")
    assert "names no known format" in refused(tmp_path / "t.xlsx")
    assert "--out is the address" in refused("s3://bucket/t.parquet")
    notes = tmp_path / "t.parquet.parts"
    notes.write_text("my notes")
    said = refused(tmp_path / "t.parquet")
    assert "what lies there is not one: move it away, or choose another place with --out" in said
    assert notes.read_text() == "my notes"
    assert "/not/there" in refused(tmp_path / "free.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.parquet", "t.parquet.parts", "words.txt"]


def test_coarse_only_and_other_sizes(tai, picture_folder, tiny_model, tmp_path):
    store, tags = tmp_path / "s.zarr", tmp_path / "t.jsonl"
    tai("cache", "images", picture_folder, store, "--model", tiny_model, "--coarse-only", "--image-size", "96")
    assert tai("info", store, "--json").json()[0]["fine_features"] is False
    assert tai("tag", store, "--vocabulary", write_words(tmp_path / "w.txt"), "--out", tags).status == 0
    assert {json.loads(line)["id"] for line in tags.read_text().splitlines()} == GOOD


def test_sentences_are_cached_like_pictures(tai, tiny_model, tmp_path):
    sentences = tmp_path / "s.txt"
    sentences.write_text("a dog\n\na cat on a mat\n")
    outcome = tai("cache", "texts", sentences, tmp_path / "s.zarr", "--model", tiny_model, "--json")
    assert outcome.status == 0
    batch = FeatureStore.open(tmp_path / "s.zarr").read_group(0)
    assert batch.counts.tolist() == [4, 7]  # start and end of text among them


def test_doctor_says_what_is_missing(tai, tiny_model, monkeypatch, tmp_path):
    found = tai("doctor", "--model", tiny_model, "--json")
    states = {row["subject"]: row["state"] for row in found.json()}
    assert {"python", "torch", "faiss", "cpu", "disk here"} <= set(states)
    assert states[f"weights of {tiny_model} openai"] == "ok"
    missing = tai("doctor", "--model", f"local-dir:{tmp_path / 'absent'}", "--json")
    row = next(row for row in missing.json() if row["subject"].startswith("weights of"))
    assert row["state"] == "missing"
    assert "local-dir:" in row["remedy"]
    assert missing.status == 2


def test_version_and_help(tai):
    assert tai("--version").stdout.startswith("tai-engine ")
    assert "Tag large picture collections" in tai("--help").stdout


def test_names_that_are_not_utf8_are_kept_apart(tai, tiny_model, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"caf\xe8.png"):
        Image.new("RGB", (8, 8)).save(folder / os.fsdecode(name))
    outcome = tai("cache", "images", folder, tmp_path / "s.zarr", "--model", tiny_model, "--json")
    assert outcome.status == 0
    assert len({entry.id for entry in FeatureStore.open(tmp_path / "s.zarr").ledger()}) == 2
