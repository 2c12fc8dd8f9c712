import os
import stat

from tai_engine.disk_cache import DiskCache


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_put_is_got_by_another_one_too(tmp_path):
    cache = DiskCache(tmp_path / "c", 10_000)
    assert cache.get("a") is None
    cache.put("a", b"first")
    cache.put("ö\udcff\n/../..", b"second")
    assert cache.get("a") == b"first"
    assert DiskCache(tmp_path / "c", 10_000).get("ö\udcff\n/../..") == b"second"
    cache.put("a", b"third")
    assert cache.get("a") == b"third"
    assert len(entries(tmp_path)) == 2
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) & 0o077 == 0  # pictures are nobody else's business


def test_a_bad_entry_is_a_miss(tmp_path):
    cache = DiskCache(tmp_path, 10_000)
    cache.put("a", b"content")
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    for bad in (whole[:-1], whole + b"x", b"", b"\0" * len(whole), whole[:20] + b"?" + whole[21:]):
        path.write_bytes(bad)
        assert cache.get("a") is None
    cache.put("a", b"content")
    assert cache.get("a") == b"content"


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = DiskCache(tmp_path, 10 * 116)
    for n in range(10):
        cache.put(f"{n}", bytes([n]) * 100)  # 16 bytes more for the digest
    for n, path in enumerate(sorted(entries(tmp_path), key=lambda path: path.read_bytes()[16])):
        os.utime(path, (1_000_000 + n, 1_000_000 + n))
    assert cache.get("0") is not None  # now it was used last
    cache.put("new", b"x" * 100)
    assert [n for n in range(10) if cache.get(f"{n}") is None] == [1, 2]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 0.9 * 10 * 116


def test_a_cache_that_is_found_full_counts_what_is_there(tmp_path):
    DiskCache(tmp_path, 10_000).put("old", b"x" * 500)
    DiskCache(tmp_path, 400).put("new", b"y" * 100)
    assert DiskCache(tmp_path, 400).get("old") is None


def test_where_nothing_can_be_kept_nothing_goes_wrong(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = DiskCache(tmp_path / "file", 10_000)
    cache.put("a", b"content")
    assert cache.get("a") is None
    none = DiskCache(tmp_path / "c", 0)
    none.put("a", b"content")
    assert none.get("a") is None
