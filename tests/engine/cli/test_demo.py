"""The demo command, on fewer captions than a newcomer sees."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tai_engine.cli.demo import describe_gain
from tai_engine.demo import walkthrough
from tai_engine.evaluation.bootstrap import Interval
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tuning import Tuner


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    config, words = walkthrough.tuning_settings()
    short = replace(config, epochs=1, batch_size=1024)
    monkeypatch.setattr(walkthrough, "tuning_settings", lambda: (short, words))


@pytest.mark.slow
def test_the_whole_way_and_again(tai, tmp_path, monkeypatch):
    outcome = tai("demo", "--out", tmp_path / "out", "--captions", 100, "--json")
    assert outcome.status == 0
    report = outcome.json()[0]
    assert (report["photographs"], report["measured_on"]) == (25, 80)
    assert FeatureStore.open(report["store"]).counts() == {"done": 25, "failed": 0}
    tags = pq.read_table(report["tags"]).to_pylist()
    assert {row["id"] for row in tags} <= {path.name for path in (tmp_path / "out" / "photographs").iterdir()}
    assert "pizza" in {row["tag"] for row in tags if row["id"] == "pizza.jpg"}
    assert min(row["probability"] for row in tags) >= 0.5
    for sheet in ("contact_sheet", "heatmaps"):
        with Image.open(report[sheet]) as picture:
            assert picture.format == "JPEG"
    assert "<html" in (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    # The model's own figures on its ready store; see its card.
    value, low, high = report["map"]["merged"]["zero_shot"]
    assert value == pytest.approx(0.605, abs=0.01)
    assert low < value < high
    first, second, gain = (report["map"]["merged"][name][0] for name in ("zero_shot", "tuned", "gain"))
    assert gain == pytest.approx(second - first, abs=1e-9)
    epochs = (tmp_path / "out" / "tuning" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["steps"] for line in epochs] == [report["steps"]]
    prompts = PromptSet.load(report["prompts"])

    def refuse(*_):
        raise AssertionError("it was tuned already")

    monkeypatch.setattr(Tuner, "_train_on", refuse)
    monkeypatch.setattr("tai_engine.cli.output.results.width", 200)
    again = tai("demo", "--out", tmp_path / "out", "--captions", 100)
    assert again.status == 0
    assert "25 were in the store already" in again.stdout
    assert "The first 8 of 25 photographs" in again.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in again.stdout.splitlines()]
    merged = next(row for row in rows if row[:1] == ["merged"])
    assert merged[1] == f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert PromptSet.load(report["prompts"]).global_vectors.equal(prompts.global_vectors)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.005, -0.01, 0.02), "Tuned and zero-shot prompts cannot be told apart by these photographs"),
        (Interval(0.035, 0.012, 0.055), "Prompts tuned on captions are better than zero-shot ones (+3.5 points, 95 %"),
        (Interval(-0.08, -0.1, -0.06), "Prompts tuned on captions are worse than zero-shot ones (-8.0 points"),
    ],
)
def test_what_tuning_did_is_said_as_it_is(gain, said):
    assert describe_gain(gain).startswith(said)


def test_an_unwritable_place_is_one_sentence(tai, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = tai("demo", "--out", tmp_path / "file")
    assert outcome.status == 2
    assert "Cannot write" in outcome.stderr
