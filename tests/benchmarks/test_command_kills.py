"""A few kills of a command; what counts in a file; and that a change is noticed."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tai_benchmarks.command_kills import CommandTally, content_of_file, kill_command, run_forked_here
from tai_benchmarks.command_subjects import COMMANDS, prepare
from tai_engine.tagging.exporters import EXPORTERS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_format_is_killed_while_it_is_written():
    assert {f"export {name}" for name in EXPORTERS} <= set(COMMANDS)


def test_times_do_not_count_in_files(tmp_path):
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text('{"created": "2026-01-02T03:04:05+00:00", "n": 1}')
    two.write_text('{"created": "2027-11-12T13:14:15+00:00", "n": 1}')
    assert content_of_file(one) == content_of_file(two)
    two.write_text('{"created": "2027-11-12T13:14:15+00:00", "n": 2}')
    assert content_of_file(one) != content_of_file(two)
    for path, created in (
        (tmp_path / "a.parquet", b"2026-01-02T03:04:05"),
        (tmp_path / "b.parquet", b"2027-01-02T03:04:05"),
    ):
        table = pa.table({"x": [1, 2]}).replace_schema_metadata({b"created": created, b"kind": b"k"})
        pq.write_table(table, path)
    assert content_of_file(tmp_path / "a.parquet") == content_of_file(tmp_path / "b.parquet")


def test_what_went_wrong_is_said():
    tally = CommandTally(kills=3, temporaries=1, wrong=["tag, Aim(): left for good"])
    assert " ".join(tally.describe("tag").split()) == "tag 3 kills, 1 temporary files cleared: 1 went wrong"


@pytest.mark.slow
def test_a_killed_export_leaves_the_older_file_or_the_new_one(tmp_path, one_thread):
    start = tmp_path / "start"
    prepare(start, lambda given: run_forked_here(given, start, tmp_path / "log"))
    tally = kill_command(tmp_path, start, COMMANDS["export csv"], kills=3, seed=1)
    assert (tally.kills, tally.wrong) == (3, [])
