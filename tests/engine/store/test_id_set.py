"""The set of ids behaves as Python's own, in less memory."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.store import IdSet


@settings(deadline=None)
@given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5)))
def test_it_is_a_set(ids, others):
    names = IdSet()
    plain = set()
    for name in ids:
        assert names.add(name) == (name not in plain)
        plain.add(name)
    assert len(names) == len(plain)
    assert all((name in names) == (name in plain) for name in [*ids, *others])


def test_many_ids_survive_the_merging():
    order = [f"folder/{i}.jpg" for i in range(20_000)]
    random.Random(0).shuffle(order)
    names = IdSet(order + order[:100])
    assert len(names) == 20_000
    assert all(f"folder/{i}.jpg" in names for i in range(0, 20_000, 7))
    assert not any(f"other/{i}.jpg" in names for i in range(0, 20_000, 7))
    assert names.add("folder/0.jpg") is False


def test_equal_first_halves_of_the_hash_are_told_apart(monkeypatch):
    # Five ids whose hashes differ in the second half alone, merged into the sorted part.
    monkeypatch.setattr("tai_engine.store.inventory._key_of", lambda name: b"\1" * 8 + int(name).to_bytes(8, "little"))
    names = IdSet(str(i) for i in range(4200))
    assert all(str(i) in names for i in range(0, 4200, 500))
    assert "5000" not in names
