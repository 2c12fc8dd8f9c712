"""The demo command, on fewer pictures than a newcomer sees."""

import json

import pyarrow.parquet as pq
from PIL import Image

from tai_engine.store import FeatureStore


def test_the_whole_way_and_again(tai, tmp_path):
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
    again = tai("demo", "--out", tmp_path / "out", "--pictures", "12")
    assert again.status == 0
    assert "12 were in the store already" in again.stdout
    assert "The first 8 of 12 pictures" in again.stdout


def test_an_unwritable_place_is_one_sentence(tai, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = tai("demo", "--out", tmp_path / "file", "--pictures", "1")
    assert outcome.status == 2
    assert "Cannot write" in outcome.stderr
