"""Text that others wrote does not steer the terminal, and machines get it as it is."""

import io
import json
import logging
import math
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tai_engine.cli import main as command_line
from tai_engine.cli import output
from tai_engine.cli.foreign_text import shown

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\n\rc\td\u202egpj.exe\u2066\x9b31m[/b][red]x:smile:"
SHOWN = r"a\x1b[2J\x1b]0;title\x07b\n\rc\td\u202egpj.exe\u2066\x9b31m[/b][red]x:smile:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOSTILE, SHOWN),
        ("plain / ä 猫 'x' \\n", "plain / ä 猫 'x' \\n"),
        ("\udcff.jpg \ud800", r"\xff.jpg \ud800"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),  # joiners belong to their letters
        ("\u2028\u2029\u200b\ufeff\U000e0041", r"\u2028\u2029\u200b\ufeff\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text, expected):
    assert shown(text) == expected
    assert shown(expected) == expected


@given(st.text())
def test_nothing_that_steers_is_left(text):
    left = {c for c in shown(text) if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")}
    assert left == set()
    assert not set(shown(text)) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def terminal(monkeypatch, encoding: str) -> io.BytesIO:
    """stdout and stderr as one terminal of that encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    output.prepare_streams()
    return raw


def test_every_way_to_the_terminal_is_guarded(monkeypatch):
    raw = terminal(monkeypatch, "utf-8")
    output.results.print(HOSTILE)
    output.remarks.print(HOSTILE, style="red")
    output.print_table(HOSTILE, (HOSTILE, "n"), [(HOSTILE, 1.5)])
    output.print_fields("a\tb", "c\nd", HOSTILE)
    logging.getLogger("foreign").handle(logging.LogRecord("x", 30, "", 0, "left out: %s", (HOSTILE,), None))
    output.RemarkHandler().emit(logging.LogRecord("x", 30, "", 0, "left out: %s", (HOSTILE,), None))
    text = raw.getvalue().decode()
    assert not set(text) & set("\x1b\x07\r\t\x9b\u202e\u2066") - {"\t"}
    assert text.startswith(f"{SHOWN}\n{SHOWN}\n")
    assert f"a\\tb\tc\\nd\t{SHOWN}\n" in text
    assert f"WARNING: left out: {SHOWN}\n" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_of_few_letters_do_not_end_a_run(monkeypatch, encoding):
    raw = terminal(monkeypatch, encoding)
    output.results.print("ä 猫 → \udcff")
    output.print_table("猫", ("猫",), [("猫",)])
    output.print_fields("猫", "ä")
    output.print_json({"id": "ä猫\udcff\n\t"})
    lines = raw.getvalue().decode(encoding).splitlines()
    assert lines[0].endswith(r"\u732b \u2192 \xff") or lines[0].endswith("\\u732b \\u2192 \\xff")
    assert json.loads(lines[-1]) == {"id": "ä猫\udcff\n\t"}


def test_json_is_exact(capsys):
    rows = [{"id": HOSTILE}, {"id": "ä 猫"}, {"id": "\udcff"}]
    output.print_json(rows)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "ä 猫" in lines[1]


def test_names_of_arguments_are_guarded_too(tai):
    for arguments in (
        ("tag", "--\x1b[31m"),
        ("\x1b[31m",),
        ("info", "\x1b[31m"),
        ("evaluate", "a", "b\x1b[31m", "--truth", "c"),
    ):
        outcome = tai(*arguments)
        assert outcome.status == 2
        assert "\x1b[31m" not in outcome.stderr
        assert r"\x1b[31m" in outcome.stderr
    assert "see `tai tag --help`" in tai("tag", "--nonsense").stderr


def test_failed_items_are_a_line_each_with_tabs_between(tai, tiny_model, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ["broken one.jpg", "new\nline.jpg", "ta\tb.jpg", "ta\\tb.jpg", "\x1b[31mred.jpg"]
    for name in names:
        (folder / name).write_bytes(b"no picture")
    tai("cache", "images", folder, tmp_path / "s.zarr", "--model", tiny_model)
    lines = tai("info", tmp_path / "s.zarr", "--failed").stdout.splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == sorted(
        ["broken one.jpg", r"new\nline.jpg", r"ta\tb.jpg", r"ta\\tb.jpg", r"\x1b[31mred.jpg"]
    )
    assert all(len(line.split("\t")) == 2 for line in lines)
    exact = tai("info", tmp_path / "s.zarr", "--failed", "--json").json()
    assert sorted(entry["id"] for entry in exact) == sorted(names)


def test_a_fault_of_ours_has_a_status_of_its_own(monkeypatch, capsys):
    def fail(**_):
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(command_line.typer.main, "get_command", lambda _: fail)
    for preparation in ("refuse_infinite", "guard_places"):
        monkeypatch.setattr(command_line, preparation, lambda _: None)
    monkeypatch.setattr(sys, "argv", ["tai"])
    with pytest.raises(SystemExit) as leaving:
        command_line.main()
    assert leaving.value.code == 3
    error = capsys.readouterr().err
    assert "this is a mistake of the program" in error
    assert f"RuntimeError: {shown(HOSTILE.splitlines()[0])}" in error
    assert "\x1b" not in error


def test_json_has_no_number_that_is_none(capsys):
    output.print_json({"map": math.nan, "groups": {"rare": {"map": -math.inf, "ap": (0.5, math.inf)}}})
    said = capsys.readouterr().out
    assert said == '{"map": null, "groups": {"rare": {"map": null, "ap": [0.5, null]}}}\n'
