"""Every mistake of a user gives one clear sentence and status 2, and leaves nothing half-written."""

import json
from pathlib import Path

import pytest

from tai_engine.encoders import load_encoder


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("cat\ndog\n")
    return path


def refused(outcome, *parts: str) -> None:
    message = " ".join(outcome.stderr.split())
    assert outcome.status == 2
    assert outcome.stdout == ""
    for part in parts:
        assert part in message, message


def test_no_such_folder_and_no_pictures(tai, tiny_model, tmp_path):
    store = tmp_path / "s.zarr"
    refused(tai("cache", "images", tmp_path / "nowhere", store, "--model", tiny_model), "nowhere")
    (tmp_path / "bare").mkdir()
    refused(tai("cache", "images", tmp_path / "bare", store, "--model", tiny_model), "bare", "no pictures")
    assert not store.exists()


def test_unknown_models_and_tags_list_close_ones(tai, picture_folder, tmp_path):
    store = tmp_path / "s.zarr"
    refused(tai("cache", "images", picture_folder, store, "--model", "RN500"), "Unknown model 'RN500'", "RN50")
    refused(tai("cache", "images", picture_folder, store, "--pretrained", "opnai"), "'opnai'", "'openai'")
    assert not store.exists()


def test_weights_without_network_say_how_to_go_offline(tai, picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    outcome = tai("cache", "images", picture_folder, tmp_path / "s.zarr", "--model", "ViT-B-32")
    refused(outcome, "ViT-B-32", "local-dir:")


def test_a_store_of_another_space_or_recipe_is_not_gone_on_with(
    tai, picture_folder, filled_store, tiny_model, other_model
):
    before = sorted(str(p) for p in filled_store.rglob("*"))
    refused(tai("cache", "images", picture_folder, filled_store, "--model", other_model), "embedding space")
    refused(tai("cache", "images", picture_folder, filled_store, "--model", tiny_model, "--image-size", "96"), "recipe")
    refused(tai("cache", "images", picture_folder, filled_store, "--model", tiny_model, "--rows", "fp32"), "float32")
    assert sorted(str(p) for p in filled_store.rglob("*")) == before


def test_tagging_in_another_space_names_both(tai, filled_store, words, tiny_model, other_model, tmp_path):
    out = tmp_path / "t.parquet"
    outcome = tai("tag", filled_store, "--vocabulary", words, "--out", out, "--model", other_model)
    keys = {load_encoder(name, "", device="cpu").space_key for name in (tiny_model, other_model)}
    assert len(keys) == 2
    refused(outcome, "embedding space", *keys)
    assert not list(tmp_path.glob("t.*"))


def test_tagging_needs_words_and_a_place(tai, filled_store, words, tmp_path):
    out = tmp_path / "t.parquet"
    refused(tai("tag", filled_store, "--out", out), "--vocabulary")
    refused(tai("tag", filled_store, "--vocabulary", "coco81", "--out", out), "'coco81'", "'coco80'")
    refused(tai("tag", filled_store, "--vocabulary", words, "--out", tmp_path / "t.doc"), ".doc", ".parquet")
    refused(
        tai("tag", filled_store, "--vocabulary", words, "--out", words / "t.parquet"), "a part of the path is a file"
    )
    refused(tai("tag", filled_store, "--vocabulary", words, "--out", out, "--score", "best"), "'best'", "'merged'")
    refused(tai("tag", filled_store, "--vocabulary", words, "--prompts", words, "--out", out), "--prompts already")
    refused(tai("tag", filled_store, "--prompts", tmp_path / "p.safetensors", "--out", out), "no prompt set")
    refused(tai("tag", tmp_path / "none.zarr", "--vocabulary", words, "--out", out), "none.zarr")
    assert not list(tmp_path.glob("t.*"))


def test_vocabulary_mistakes(tai, filled_store, tmp_path):
    for text, part in (("", "no classes"), ("cat\ncat\n", "'cat'"), ("# nothing\n", "no classes")):
        (tmp_path / "w.txt").write_text(text)
        outcome = tai("tag", filled_store, "--vocabulary", tmp_path / "w.txt", "--out", tmp_path / "t.parquet")
        refused(outcome, part)


def test_a_store_of_a_newer_schema_is_not_touched(tai, picture_folder, tiny_model, words, tmp_path):
    store = tmp_path / "s.zarr"
    tai("cache", "images", picture_folder, store, "--model", tiny_model)
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["tai_engine"]["schema_version"] = 99
    (store / "zarr.json").write_text(json.dumps(metadata))
    for outcome in (
        tai("info", store),
        tai("tag", store, "--vocabulary", words, "--out", tmp_path / "t.parquet"),
        tai("cache", "images", picture_folder, store, "--model", tiny_model),
    ):
        refused(outcome, "schema version 99", "upgrade")


def test_a_store_that_lost_a_chunk_says_which(tai, picture_folder, tiny_model, words, tmp_path):
    store = tmp_path / "s.zarr"
    tai("cache", "images", picture_folder, store, "--model", tiny_model)
    chunk = next(p for p in sorted((store / "fine").rglob("*")) if p.is_file() and p.name != "zarr.json")
    chunk.unlink()
    outcome = tai("tag", store, "--vocabulary", words, "--out", tmp_path / "t.parquet")
    refused(outcome, "damaged", "missing")
    assert not (tmp_path / "t.parquet").exists()


def test_evaluation_mistakes(tai, filled_store, words, tmp_path):
    tags = tmp_path / "t.parquet"
    tai("tag", filled_store, "--vocabulary", words, "--out", tags)
    truth = tmp_path / "truth.jsonl"
    truth.write_text('{"file_name": "0.png", "labels": ["catt"]}\n')
    refused(tai("evaluate", tags, "--truth", truth), "'catt'", "'cat'")
    truth.write_text('{"file_name": "elsewhere.png", "labels": ["cat"]}\n')
    refused(tai("evaluate", tags, "--truth", truth), "no picture in common", "elsewhere.png")
    refused(tai("evaluate", tags, "--truth", tmp_path / "none.jsonl"), "none.jsonl")
    refused(tai("evaluate", words, "--truth", truth), "not a whole file of tags")


def test_names_that_no_file_system_takes(tai, filled_store, words, tmp_path):
    long = "x" * 300
    tags = tmp_path / "t.parquet"
    assert tai("tag", filled_store, "--vocabulary", words, "--out", tags).status == 0
    for command in (
        ["tag", filled_store, "--vocabulary", words, "--out", tmp_path / f"{long}.csv"],
        [
            "tag",
            filled_store,
            "--vocabulary",
            words,
            "--out",
            tmp_path / f"{long[:246]}.parquet",
        ],  # parts: more
        ["tag", filled_store, "--vocabulary", tmp_path / f"{long}.txt", "--out", tmp_path / "u.csv"],
        ["evaluate", tags, "--truth", tmp_path / f"{long}.csv"],
        ["evaluate", tmp_path / long, "--truth", words],
        ["export", tags, "--to", "csv", "--out", tmp_path / f"{long}.csv"],
        ["report", tags, "--images", tmp_path, "--out", tmp_path / long],
        ["annotate", tmp_path, "--out", tmp_path / long],
    ):
        refused(tai(*command), "File name too long", "check its name")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet", "words.txt"]


def test_usage_errors_leave_with_2(tai):
    assert tai("tag").status == 2
    assert tai("no-such-command").status == 2
