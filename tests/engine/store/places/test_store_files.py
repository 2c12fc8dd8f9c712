"""The files of a store, in a folder and at an address: the same names, and whole or not there."""

from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore
from tai_engine.store.places import store_files
from tai_engine.store.places.local_files import LocalFiles
from tai_engine.store.places.store_files import AddressFiles, open_files


@pytest.fixture(params=["folder", "address"])
def place(request, tmp_path):
    """Where a store may come to lie, as users write it."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    yield f"memory://{tmp_path.name}/store"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def some(place):
    found = open_files(place)
    found.write("a.txt", "grün")
    found.write("commits/1.json", b"{}")
    found.write("commits/0.json", b"[]")
    return found


def test_what_lies_in_a_folder_and_what_at_an_address():
    for address in ("memory://x", "simplecache::memory://bucket/x"):
        assert not open_files(address).is_local, address
    for path in ("store", "/data/store", "a:b/c", "file:///data/store", "local:///x", Path("x")):
        assert open_files(path).is_local, path


def test_paths_are_kept_as_users_know_them(tmp_path):
    assert open_files("a/b").path == Path("a/b")
    assert open_files(f"file://{tmp_path}/x").path == tmp_path / "x"
    assert open_files("memory://a/b/").path == "memory://a/b"
    assert (open_files("a/b").is_local, open_files("memory://a").is_local) == (True, False)


def test_an_unknown_protocol_is_a_mistake_of_the_user():
    with pytest.raises(UserError, match=r"Unknown kind of address 'nosuch'"):
        open_files("nosuch://x")


def test_files_come_back(some, place):
    again = open_files(place)
    assert again.read("a.txt") == "grün".encode()
    assert again.size("a.txt") == 5
    assert again.names() == ["a.txt", "commits"]
    assert again.names("commits") == ["0.json", "1.json"]
    assert again.names("nothing") == again.names("a.txt/x") == []
    assert [again.exists(name) for name in ("a.txt", "commits/1.json", "commits", "b.txt")] == [
        True,
        True,
        False,
        False,
    ]
    assert again.local_path("a.txt") == (Path(place) / "a.txt" if again.is_local else None)


def test_files_are_replaced_and_removed(some):
    some.write("commits/1.json", b"new")
    assert some.read("commits/1.json") == b"new"
    some.remove("commits/1.json")
    some.remove("commits/1.json")
    assert some.names("commits") == ["0.json"]
    for call in (some.read, some.size):
        with pytest.raises(FileNotFoundError):
            call("commits/1.json")


def test_names_see_what_others_write(some, place):
    assert some.names("commits") == ["0.json", "1.json"]
    open_files(place).write("commits/2.json", b"")
    assert some.names("commits") == ["0.json", "1.json", "2.json"]


def test_a_place_is_free_if_nothing_is_there(place, some):
    assert open_files(place + "2").is_free()
    assert not some.is_free()


def test_a_new_store_is_there_whole_or_not_at_all(place):
    found = open_files(place)

    def fail_half_way():
        with found.new_store() as folder:
            (folder / "zarr.json").write_text("{}")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert found.is_free()
    with found.new_store() as folder:
        (folder / "sub").mkdir(parents=True)
        (folder / "zarr.json").write_text("{}")
        (folder / "sub" / "x").write_text("1")
    assert (found.names(), found.names("sub"), found.read("sub/x")) == (["sub", "zarr.json"], ["x"], b"1")


def test_what_makes_a_store_is_put_last_at_an_address(tmp_path, monkeypatch):
    put = []
    for call in ("_write", "_create", "_remove"):
        monkeypatch.setattr(AddressFiles, call, lambda self, name, data="", call=call: put.append((call, name)))
    with open_files("memory://x/y").new_store() as folder:
        for name in ("zarr.json", "b/zarr.json", "a"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
    assert put == [
        ("_write", ".new-store.tmp"),
        ("_write", "a"),
        ("_write", "b/zarr.json"),
        ("_create", "zarr.json"),
        ("_remove", ".new-store.tmp"),
    ]


def test_local_files_are_durable_before_their_folder(tmp_path, synced):
    found = LocalFiles(tmp_path)
    for name in ("a/x", "a/y", "b/z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("12")
    found.sync(["a/x", "b/z"])
    inodes = [inode for inode, _ in synced]
    assert inodes == [(tmp_path / name).stat().st_ino for name in ("a/x", "b/z", "a", "b")]


def test_a_web_address_can_only_be_read(monkeypatch):
    fsspec.filesystem("memory").pipe_file("/web/zarr.json", b"{}")
    monkeypatch.setattr(store_files, "is_http", lambda address: True)
    found = open_files("memory://web")
    assert found.read("zarr.json") == b"{}"
    assert found.zarr_store().read_only
    for call in (lambda: found.write("a", b""), lambda: found.remove("zarr.json"), found.new_store().__enter__):
        with pytest.raises(UserError, match="memory://web can be read only"):
            call()
    assert not found.is_free()


def test_whatever_a_protocol_raises_is_one_sentence(monkeypatch):
    found = open_files("memory://a/b")

    def refuse(*_args, **_kwargs):
        raise RuntimeError("no credentials")

    for name in ("info", "ls", "pipe_file", "cat_file"):
        monkeypatch.setattr(found._system, name, refuse)
    with pytest.raises(UserError, match=r"Cannot write memory://a/b/x: RuntimeError: no credentials; check the place"):
        found.write("x", b"")
    for call in (found.exists, found.names, found.read):
        with pytest.raises(OSError, match="RuntimeError: no credentials"):
            call("x")
    with pytest.raises(UserError, match=r"memory://a/b cannot be read"):
        FeatureStore.is_free("memory://a/b")


_CONNECTION_ERROR = type("ClientConnectionError", (Exception,), {"__module__": "aiohttp.client_exceptions"})


@pytest.mark.parametrize("cause", [_CONNECTION_ERROR("refused"), TimeoutError("too slow")])
def test_what_does_not_answer_is_not_taken_for_absent(monkeypatch, cause):
    """As fsspec says it of web servers: not found, and the cause beside."""

    def silent(*_args, **_kwargs):
        raise FileNotFoundError("https://a/b") from cause

    for name in ("info", "ls", "cat_file"):
        monkeypatch.setattr(MemoryFileSystem, name, silent)
    found = open_files("memory://a/b")
    for call in (found.exists, found.names, found.read):
        with pytest.raises(OSError, match=f"{cause}") as caught:
            call("x")
        assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(
        UserError, match=r"The store memory://a/b cannot be read \(.*\), which does not say that there is"
    ):
        FeatureStore.open("memory://a/b")


def test_a_web_server_that_nobody_runs():
    pytest.importorskip("aiohttp")
    with pytest.raises(UserError, match=r"^The store http://127\.0\.0\.1:9/x cannot be read \(Connect call failed"):
        FeatureStore.open("http://127.0.0.1:9/x")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_store_at_any_place_is_the_same(place, dtype):
    store = FeatureStore.create(place, small_spec(row_dtype=dtype))
    write_group(store, 0, done(*"abcdef"), [random_batch("abcdef", [3, 2, 3, 0, 1, 3])])
    write_group(store, 1, done(*"ghi"), [random_batch("ghi", [3] * 3, seed=1)])
    store = FeatureStore.open(place)
    assert str(store.path) == place
    whole = FeatureBatch.concatenate([store.read_group(0), store.read_group(1)])
    assert whole.ids == tuple("abcdefghi")
    assert same(FeatureBatch.concatenate(list(store.iter_batches(4))), whole)
    assert same(store.read_items([8, 2, 3, 0, 1]), whole.select([8, 2, 3, 0, 1]))
    with store.writing():
        store.delete([2, 6])
    assert FeatureStore.open(place).counts() == {"done": 7, "failed": 0}


def test_a_lost_chunk_at_an_address_is_named():
    store = FeatureStore.create("memory://lost/store", small_spec())
    write_group(store, 0, done(*"abcdef"), [random_batch("abcdef", [3] * 6)])
    fsspec.filesystem("memory").rm("/lost/store/fine/c.1.0")
    for read in (lambda: store.read_group(0), lambda: store.read_items([3])):
        with pytest.raises(UserError, match=r"Group 0 of the store memory://lost/store .*fine/c\.1\.0 is missing"):
            read()
    with pytest.raises(UserError, match="There is no store at memory://lost/other"):
        FeatureStore.open("memory://lost/other")
