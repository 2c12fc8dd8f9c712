"""The demo command, on fewer pictures and sentences than a newcomer sees."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tai_engine.cli.demo import describe_change
from tai_engine.demo import walkthrough
from tai_engine.demo.recipe import own_names_recipe, tuning_recipe
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tuning import Tuner


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(walkthrough, "SENTENCES", 150)
    monkeypatch.setattr(walkthrough, "tuning_recipe", lambda: replace(tuning_recipe(), epochs=4, batch_size=64))
    monkeypatch.setattr(walkthrough, "own_names_recipe", lambda: replace(own_names_recipe(), epochs=6, batch_size=64))


def test_the_whole_way_and_again(tai, tmp_path, monkeypatch):
    outcome = tai("demo", "--out", tmp_path / "out", "--pictures", "12", "--json")
    assert outcome.status == 0
    report = outcome.json()[0]
    assert report["pictures"] == 12
    assert 0.2 < report["map_zero_shot"] <= 1
    assert FeatureStore.open(report["store"]).counts() == {"done": 12, "failed": 0}
    table = pq.read_table(report["tags"])
    assert table.num_rows == 12 * 80
    truth = [json.loads(line) for line in next((tmp_path / "out").rglob("truth.jsonl")).read_text().splitlines()]
    assert {row["file_name"] for row in truth} == set(table.column("id").to_pylist())
    with Image.open(report["contact_sheet"]) as sheet:
        assert sheet.format == "PNG"
    assert 0.2 < report["map_tuned"] <= 1
    assert report["map_untuned"] != report["map_tuned"]
    epochs = [json.loads(line) for line in (tmp_path / "out" / "tuning" / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["steps"] for epoch in epochs] == [2, 4, 6, 8]
    assert (report["sentences"], report["steps"]) == (150, 4 * ((150 - 11) // 64))
    # Names that the model has never read mean something to it after a dozen steps.
    assert report["map_tuned_own_names"] > 2 * report["map_zero_shot_own_names"]
    assert PromptSet.load(report["prompts_own_names"]).class_names[0] == "article 101"
    prompts = PromptSet.load(report["prompts"])
    assert prompts.method == "tuned"
    assert len(prompts.class_names) == 80
    with Image.open(tmp_path / "out" / "tuning" / "curve.png") as curve:
        assert curve.format == "PNG"
    assert " ← " in (tmp_path / "out" / "tuning" / "mined.txt").read_text(encoding="utf-8")

    def refuse(*_):
        raise AssertionError("it was tuned already")

    monkeypatch.setattr(Tuner, "_train_on", refuse)
    monkeypatch.setattr("tai_engine.cli.output.results.width", 200)
    again = tai("demo", "--out", tmp_path / "out", "--pictures", "12")
    assert again.status == 0
    assert "12 were in the store already" in again.stdout
    assert "150 were in the store already" in again.stdout
    assert "The first 8 of 12 pictures" in again.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in again.stdout.splitlines()]
    merged = {row[0]: float(row[3]) for row in rows if len(row) == 4 and row[0] != "prompts"}
    assert merged == {
        "zero-shot": round(100 * report["map_zero_shot"], 1),
        "before tuning": round(100 * report["map_untuned"], 1),
        "tuned": round(100 * report["map_tuned"], 1),
        "zero-shot, own names": round(100 * report["map_zero_shot_own_names"], 1),
        "tuned, own names": round(100 * report["map_tuned_own_names"], 1),
    }
    assert PromptSet.load(report["prompts"]).global_vectors.equal(prompts.global_vectors)


@pytest.mark.parametrize(
    ("zero_shot", "tuned", "said"),
    [
        (0.68, 0.685, "Tuned prompts are as good as zero-shot ones here (+0.5 points)"),
        (0.68, 0.70, "Tuned prompts are better than zero-shot ones here (+2.0 points)"),
        (0.68, 0.60, "Tuned prompts are worse than zero-shot ones here (-8.0 points)"),
    ],
)
def test_what_tuning_did_is_said_as_it_is(zero_shot, tuned, said):
    assert describe_change(zero_shot, tuned).startswith(said + ".")


def test_an_unwritable_place_is_one_sentence(tai, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = tai("demo", "--out", tmp_path / "file", "--pictures", "1")
    assert outcome.status == 2
    assert "Cannot write" in outcome.stderr
