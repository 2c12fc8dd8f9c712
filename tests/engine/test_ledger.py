import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.ledger import LedgerEntry, LedgerSummary, read_ledger, summarise, write_ledger

ENTRIES = [
    LedgerEntry("b.jpg", "done"),
    LedgerEntry("ä\n\".jpg", "failed", "truncated: 12 bytes: too few"),
    LedgerEntry("a.jpg", "failed", "broken"),
    LedgerEntry("c.jpg", "failed", "truncated: nothing"),
    LedgerEntry("d.jpg", "pending"),
    LedgerEntry("e.jpg", "failed", "absent"),
]  # fmt: skip


def test_summary_counts_by_category_most_frequent_first():
    summary = summarise(iter(ENTRIES))
    assert summary == LedgerSummary(1, 4, 1, {"truncated": 2, "absent": 1, "broken": 1})
    assert list(summary.reasons) == ["truncated", "absent", "broken"]
    assert summary.items == 6
    assert summarise([]) == LedgerSummary(0, 0, 0, {})


def test_write_and_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert write_ledger(path, iter(ENTRIES)) == summarise(ENTRIES)
    assert list(read_ledger(path)) == ENTRIES
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == '{"id": "b.jpg", "status": "done"}'
    assert json.loads(lines[1]) == {"id": 'ä\n".jpg', "status": "failed", "reason": "truncated: 12 bytes: too few"}


def test_an_empty_ledger(tmp_path):
    assert write_ledger(tmp_path / "l", []).items == 0
    assert list(read_ledger(tmp_path / "l")) == []


def test_reading_streams(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"id": "a", "status": "done"}\nnonsense\n')
    entries = read_ledger(path)
    assert next(entries) == LedgerEntry("a", "done")
    with pytest.raises(UserError, match=r"l\.jsonl' is damaged after line 1"):
        next(entries)


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "l.jsonl"
    write_ledger(path, ENTRIES[:1])

    def entries():
        yield ENTRIES[1]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_ledger(path, entries())
    assert list(read_ledger(path)) == ENTRIES[:1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"id": "a"}', '{"id": "a", "status": "lost"}', '{"id": "a", "status": "failed"}', "\xff"]
)
def test_damaged_ledgers(tmp_path, line):
    path = tmp_path / "l.jsonl"
    path.write_bytes(b'{"id": "a", "status": "done"}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match="is damaged"):
        list(read_ledger(path))


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(read_ledger(tmp_path / "none"))
    with pytest.raises(UserError, match="Cannot write"):
        write_ledger(tmp_path, ENTRIES)


@pytest.mark.parametrize(("status", "reason"), [("lost", None), ("done", "broken"), ("failed", None), ("failed", "")])
def test_entries_that_make_no_sense(status, reason):
    with pytest.raises(ValueError, match="'a'"):
        LedgerEntry("a", status, reason)


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(UNICODE, UNICODE.filter(bool)), max_size=5))
@settings(max_examples=25)
def test_any_text_comes_back(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    entries = [LedgerEntry(item_id, "failed", reason) for item_id, reason in pairs]
    write_ledger(path, entries)
    assert list(read_ledger(path)) == entries
