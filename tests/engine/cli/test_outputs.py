"""Every command finds out whether its result can be written before it does the work."""

import os
from pathlib import Path

import pytest

from tai_benchmarks import bench_corpus
from tai_engine.cli import cache, options
from tai_engine.demo import walkthrough


@pytest.fixture
def no_work(monkeypatch):
    """Loading a model, drawing pictures and measuring are work."""

    def work(*_arguments, **_options):
        pytest.fail("the work was begun")

    monkeypatch.setattr(options, "open_encoder", work)
    monkeypatch.setattr(cache, "open_encoder", work)
    monkeypatch.setattr("tai_engine.cli.annotate.open_encoder", work)
    monkeypatch.setattr("tai_engine.cli.explain.open_encoder", work)
    monkeypatch.setattr(walkthrough, "run_demo", work)
    monkeypatch.setattr(bench_corpus, "run", work)


@pytest.fixture
def place(tmp_path):
    """A folder with a file, a folder with something in it, and some sentences."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "sentences.txt").write_text("a dog\n")
    return tmp_path


# The command, its output last; whether that is a folder.
COMMANDS = {
    "tune": (("tune", "STORE", "--vocabulary", "voc20", "--out"), False),
    "tune --run": (("tune", "STORE", "--vocabulary", "voc20", "--out", "PLACE/p.safetensors", "--run"), True),
    "tag": (("tag", "STORE", "--vocabulary", "voc20", "--format", "parquet", "--out"), False),
    "tag, a folder": (("tag", "STORE", "--vocabulary", "voc20", "--format", "datumaro", "--out"), True),
    "calibrate": (("calibrate", "STORE", "--vocabulary", "voc20", "--truth", "PLACE/file", "--out"), False),
    "export": (("export", "PLACE/file", "--to", "jsonl", "--out"), False),
    "report": (("report", "PLACE/file", "--images", "PLACE", "--out"), True),
    "annotate": (("annotate", "PLACE", "--model", "demo", "--out"), True),
    "explain": (("explain", "0.png", "--store", "STORE", "--out"), False),
    "search --sheet": (("search", "STORE", "a dog", "--images", "PLACE", "--sheet"), False),
    "demo": (("demo", "--out"), True),
    "bench": (("bench", "corpus", "--quick", "--results"), True),
    "cache images": (("cache", "images", "PLACE", "--model", "demo"), True),
    "cache texts": (("cache", "texts", "PLACE/sentences.txt", "--model", "demo"), True),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["of the other kind", "below a file", "in a folder that takes nothing"])
def test_outputs_are_checked_before_the_work(command, kind, tai, filled_store, place, no_work):
    arguments, is_folder = COMMANDS[command]
    if kind == "of the other kind":
        out = place / ("file" if is_folder else "folder")
    elif kind == "below a file":
        out = place / "file" / "below"
    elif os.path.isdir("/proc/self"):  # noqa: PTH112
        out = "/proc/no-such-thing/below"
    else:
        pytest.skip("there is no folder that takes nothing from anybody")
    given = [str(a).replace("STORE", str(filled_store)).replace("PLACE", str(place)) for a in arguments]
    outcome = tai(*given, out)
    assert outcome.status == 2
    assert outcome.stdout == ""
    said = " ".join(outcome.stderr.split())
    assert str(Path(out).parent) in said  # or what is below it
    assert any(
        words in said
        for words in (
            "Cannot write",
            "is not a feature store",
            "exists already",
            "is no report",
            "lies in the folder of",
            "which is what is read for",
        )
    )
    assert (place / "file").read_text() == "kept"
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder", "sentences.txt"]


def test_a_folder_as_the_prompt_set(tai, filled_store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for out in (".", ""):
        outcome = tai("tune", filled_store, "--vocabulary", "voc20", "--out", out)
        assert outcome.status == 2
        assert "it is a folder; give the name of a file" in " ".join(outcome.stderr.split())
