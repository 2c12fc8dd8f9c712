"""A few kills and pairs of taggers; and that a wrong file would be noticed."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tai_benchmarks.tag_contest import Contest, Tally, contest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_kills_and_pairs_leave_the_tags_of_one_run(tmp_path):
    tally = contest(tmp_path, kills=4, pairs=2, seed=3)
    assert tally.wrong == []
    assert tally.killed.total() == 4
    assert tally.killed["writing the file"] >= 1
    assert tally.outcomes.total() == 2
    assert "nothing lost, doubled or mixed" in tally.describe()


def test_a_mixed_file_and_a_thing_beside_it_are_noticed(tmp_path):
    trials, tally = Contest(tmp_path), Tally()
    out = tmp_path / "out" / "tags.parquet"
    halves = [table.slice(0, 100) for table in trials._wanted]
    pq.write_table(pa.concat_tables(halves), out)
    (tmp_path / "out" / "tags.parquet.parts").mkdir()
    trials._check("trial", [0, 1], tally)
    assert [line.split(": ")[1].split(" [")[0] for line in tally.wrong] == [
        "the tags are those of no run that was done",
        "beside the file lies",
    ]
    pq.write_table(trials._wanted[1], out)
    (tmp_path / "out" / "tags.parquet.parts").rmdir()
    trials._check("trial", [0], tally)
    assert len(tally.wrong) == 3
    trials._check("trial", [0, 1], tally)
    assert len(tally.wrong) == 3
