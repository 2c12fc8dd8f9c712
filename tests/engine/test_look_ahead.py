"""What comes next is worked on while its predecessor is used."""

import threading

import pytest

from tai_engine.look_ahead import map_ahead


def test_results_come_in_order_and_two_are_read_ahead():
    taken, is_let_go = [], [threading.Event() for _ in range(6)]

    def places():
        for place in range(6):
            taken.append(place)
            yield place

    def step(place):
        assert is_let_go[place].wait(5)
        return place * 10

    results = map_ahead(step, places(), workers=2, window=2)
    assert taken == []
    is_let_go[1].set()  # whichever is done first
    is_let_go[0].set()
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert next(results) == 10
    assert taken == [0, 1, 2, 3]
    for event in is_let_go:
        event.set()
    assert list(results) == [20, 30, 40, 50]
    assert list(map_ahead(step, [], workers=2, window=2)) == []
    assert list(map_ahead(step, [3], workers=2, window=2)) == [30]


def test_errors_come_at_their_turn():
    results = map_ahead(lambda place: 1 / place, [1, 2, 0, 4], workers=2, window=2)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_errors_of_the_places_come_at_their_turn_too():
    def places():
        yield "a"
        yield "b"
        raise KeyError("c")

    results = map_ahead(str, places(), workers=2, window=2)
    assert [next(results), next(results)] == ["a", "b"]
    with pytest.raises(KeyError, match="c"):
        next(results)
    assert list(results) == []


def test_leaving_early_ends_the_threads():
    before, read = threading.active_count(), []
    results = map_ahead(read.append, range(1000), workers=2, window=2)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(read) <= 3


def test_results_are_ahead_by_a_window_and_in_order():
    read = []

    def inputs():
        for n in range(50):
            read.append(n)
            yield n

    results = map_ahead(lambda n: n * n, inputs(), workers=3, window=4)
    assert read == []
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    assert read == list(range(8))  # four are out, and four more were asked for
    assert list(results) == [n * n for n in range(4, 50)]


def test_closing_drops_what_was_not_begun():
    begun = []
    results = map_ahead(begun.append, range(1000), workers=1, window=100)
    next(results)
    results.close()
    assert len(begun) <= 100


def test_inputs_that_are_large_are_bounded_in_bytes():
    read = []

    def inputs():
        for n in (5, 5, 1, 1, 1, 20, 1, 1):
            read.append(n)
            yield n

    results = map_ahead(str, inputs(), workers=2, window=6, bytes_of=lambda n: n, max_bytes=10)
    assert next(results) == "5"
    assert read == [5, 5, 1, 1, 1, 20]  # 5 are out; 8 are too few, and the next was 20
    assert [next(results) for _ in range(4)] == ["5", "1", "1", "1"]
    assert len(read) == 6
    assert list(results) == ["20", "1", "1"]
