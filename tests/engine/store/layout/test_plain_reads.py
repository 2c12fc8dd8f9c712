"""Reading plain chunks: the right bytes, each chunk whole once only, and damage found."""

import os

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.store.layout import plain_reads
from tai_engine.store.layout.plain_reads import DamagedChunkError, PlainChunks, share_out

ENTRIES = np.arange(7 * 5 * 3, dtype=np.int16).reshape(35, 3)  # seven chunks of five entries of three numbers


def write_chunks(folder):
    for number, chunk in enumerate(ENTRIES.reshape(7, -1)):
        data = chunk.astype("<i2").tobytes()
        (folder / f"c.{number}").write_bytes(data + google_crc32c.value(data).to_bytes(4, "little"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks")
    write_chunks(path)
    return path


def open_chunks(folder):
    return PlainChunks(lambda number: f"{folder}/c.{number}", 5, 6)


@pytest.fixture
def asked(monkeypatch):
    """Bytes asked of files, one number a read."""
    sizes = []
    read = os.preadv

    def preadv(descriptor, buffers, place):
        sizes.append(sum(map(len, buffers)))
        return read(descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", preadv)
    return sizes


def runs(chunks, starts, lengths):
    out = np.full((sum(lengths), 3), -1, dtype=np.int16)
    chunks.read(starts, lengths, out)
    return out


@pytest.fixture(params=[4, 256 * 1024], ids=["blocks of 4 bytes", "blocks"])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(plain_reads, "_BLOCK_BYTES", request.param)


@settings(max_examples=40, deadline=None)
@given(wanted=st.lists(st.tuples(st.integers(0, 34), st.integers(0, 12)), max_size=8), shared=st.booleans())
def test_any_runs(folder, wanted, shared):
    wanted = [(start, min(length, 35 - start)) for start, length in wanted]
    starts, lengths = [start for start, _ in wanted], [length for _, length in wanted]
    expected = np.concatenate([ENTRIES[:0], *(ENTRIES[start : start + length] for start, length in wanted)])
    chunks = open_chunks(folder)
    before = plain_reads._SHARED_BYTES
    try:
        plain_reads._SHARED_BYTES = 0 if shared else before
        for _ in range(2):  # the first time every chunk is tested
            np.testing.assert_array_equal(runs(chunks, starts, lengths), expected)
    finally:
        plain_reads._SHARED_BYTES = before


def test_a_chunk_is_read_whole_only_once(folder, asked):
    chunks = open_chunks(folder)
    np.testing.assert_array_equal(runs(chunks, [7, 1], [2, 1]), ENTRIES[[7, 8, 1]])
    assert asked == [30, 30]  # chunks 0 and 1
    asked.clear()
    np.testing.assert_array_equal(runs(chunks, [9, 0], [3, 2]), ENTRIES[[9, 10, 11, 0, 1]])
    assert asked == [12, 6, 30]  # parts of 0 and 1; 2 was not touched before
    asked.clear()
    chunks.forget(9, 10)  # chunk 1
    runs(chunks, [4, 9, 10], [1, 1, 1])
    assert asked == [6, 30, 6]


def test_a_whole_chunk_goes_straight_to_its_place(folder, asked, monkeypatch):
    """No block is copied: what is read lies in the destination."""
    monkeypatch.setattr(plain_reads, "_BLOCK_BYTES", 30)
    out = np.zeros((10, 3), dtype=np.int16)
    buffers = []
    read = plain_reads._read_exactly

    def seen(descriptor, view, place):
        buffers.append(np.frombuffer(view, np.uint8))
        read(descriptor, view, place)

    monkeypatch.setattr(plain_reads, "_read_exactly", seen)
    open_chunks(folder).read([5], [10], out)
    assert [np.shares_memory(buffer, out) for buffer in buffers] == [True, True]
    np.testing.assert_array_equal(out, ENTRIES[5:15])


def test_nothing_is_read_for_nothing(folder, asked):
    runs(open_chunks(folder), [3, 7], [0, 0])
    runs(open_chunks(folder), [], [])
    assert asked == []


def test_the_room_has_to_fit(folder):
    with pytest.raises(ValueError, match="the runs have 3 entries, and there is room for 2"):
        open_chunks(folder).read([0], [3], np.zeros((2, 3), np.int16))


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: data[:-1], "is damaged: it has 33 bytes, not 34"),
        (lambda data: data + b"x", "is damaged: it has 35 bytes, not 34"),
        (lambda data: b"", "is damaged: it has 0 bytes"),
        (lambda data: data[:17] + bytes([data[17] ^ 4]) + data[18:], "is damaged: its checksum is"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 128]), "is damaged: its checksum is"),
        (None, "is missing"),
    ],
)
@pytest.mark.parametrize("start", [15, 18])
def test_damage_is_found_wherever_it_is(tmp_path, damage, what, start):
    write_chunks(tmp_path)
    file = tmp_path / "c.3"
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    chunks = open_chunks(tmp_path)
    np.testing.assert_array_equal(runs(chunks, [12], [3]), ENTRIES[12:15])
    for _ in range(2):
        with pytest.raises(DamagedChunkError, match=what) as caught:
            runs(chunks, [0, start], [1, 1])
        assert caught.value.number == 3


def test_a_chunk_that_shrinks_later(tmp_path):
    write_chunks(tmp_path)
    chunks = open_chunks(tmp_path)
    runs(chunks, [16], [1])
    os.truncate(tmp_path / "c.3", 8)
    assert runs(chunks, [15], [1]).tolist() == ENTRIES[15:16].tolist()
    with pytest.raises(DamagedChunkError, match="it ends too soon"):
        runs(chunks, [17], [1])


def test_reads_that_come_back_short_go_on(folder, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda d, buffers, place: read(d, [buffers[0][:7]], place))
    np.testing.assert_array_equal(runs(open_chunks(folder), [3], [20]), ENTRIES[3:23])


def test_all_threads_are_waited_for_when_one_fails(tmp_path, monkeypatch):
    write_chunks(tmp_path)
    (tmp_path / "c.0").unlink()
    monkeypatch.setattr(plain_reads, "_SHARED_BYTES", 0)
    out = np.zeros((35, 3), np.int16)
    with pytest.raises(DamagedChunkError):
        open_chunks(tmp_path).read([0], [35], out)
    before = out.copy()
    share_out([lambda: None] * 8)
    np.testing.assert_array_equal(out, before)


def test_the_first_error_of_shared_calls_is_raised():
    def fail(number):
        raise KeyError(number)

    ran = []
    with pytest.raises(KeyError, match="1"):
        share_out([lambda: ran.append(0), lambda: fail(1), lambda: fail(2), lambda: ran.append(3)])
    assert sorted(ran) == [0, 3]


def test_a_forked_process_gets_its_own_threads(folder):
    share_out([lambda: None])
    child = os.fork()
    if child == 0:
        share_out([lambda: None])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
