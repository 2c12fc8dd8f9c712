"""Both ways of searching find the same, and each is timed."""

import json

import pytest
import torch

from tai_benchmarks import search_contest


def test_every_way_is_timed_on_the_same_store(tmp_path, capsys):
    search_contest.main(["--items", "50", "--rounds", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["items"], row["queries"]) for row in rows] == [(50, 1), (50, 3), (50, 16)]
    assert all(row[f"{way}_s"] >= 0 for row in rows for way in ("pass", "read", "flat", "in_memory"))


def test_a_difference_would_be_said(tmp_path, monkeypatch):
    search_contest.make_store(tmp_path / "s", 40)
    monkeypatch.setattr(search_contest, "search_like", lambda _store, asked, top: [[]] * len(asked))
    with pytest.raises((RuntimeError, ValueError)):
        search_contest.contest(tmp_path / "s", torch.eye(2, search_contest.DIM), 1)
