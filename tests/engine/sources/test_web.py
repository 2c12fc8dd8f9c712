import json
import logging
import pickle
import random
from types import SimpleNamespace

import pytest

from picture_server import serving, tar_bytes
from tai_engine.errors import ItemError, UserError
from tai_engine.redirects import refusal
from tai_engine.sources import ItemReader, SourceItem, open_source, streams, tar
from tai_engine.sources.remote import read_error, with_retries
from tai_engine.sources.streams import AddressStream
from tai_engine.sources.tar import TarSource

pytest.importorskip("aiohttp", reason="reading from web servers needs aiohttp")

QUICK = (0.001, 0.002)


@pytest.fixture
def web(tmp_path):
    with serving(tmp_path) as server:
        yield server


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_a_folder_of_a_web_server_has_the_ids_of_a_local_copy(tmp_path, web):
    write(tmp_path, "b.jpg", "a b/2.PNG", "a!/x%41?#.webp", "ä/ö.gif", "ä/%é.jpg", "a.txt", ".h.jpg", "a.jpg")
    local = open_source(tmp_path)
    source = open_source(web.url)
    items = list(source)
    assert [item.id for item in items] == [item.id for item in local]
    assert items == list(source)
    assert items[0].location == f"{web.url}/a%20b/2.PNG"
    assert source.estimate_count() == 6
    reader = pickle.loads(pickle.dumps(source.reader))
    assert [reader(item) for item in items] == [local.reader(item) for item in local]
    assert open_source(f"{web.url}/a%20b/").estimate_count() == 1


def test_a_picture_and_lists(tmp_path, web):
    write(tmp_path, "d/a b.jpg", "d/c%20d.jpg")
    source = open_source(f"{web.url}/d/a%20b.jpg?width=3")
    [item] = source
    assert (item.id, item.size) == ("a b.jpg", 9)
    assert source.reader(item) == b"d/a b.jpg"
    rows = [{"file_name": "a b.jpg"}, {"file_name": "c%20d.jpg"}, {"image": f"{web.url}/d/a%20b.jpg"}]
    (tmp_path / "d" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for place in (f"{web.url}/d/metadata.jsonl", tmp_path / "d" / "metadata.jsonl"):
        source = open_source(place)
        assert [item.id for item in source] == ["a b.jpg", "c%2520d.jpg", f"{web.url}/d/a%20b.jpg"]
        assert [source.reader(item) for item in source] == [b"d/a b.jpg", b"d/c%20d.jpg", b"d/a b.jpg"]


@pytest.mark.parametrize("answers_ranges", [True, False])
@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz")])
def test_archives_of_a_web_server_survive_failures(tmp_path, monkeypatch, answers_ranges, name, mode):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(tar, "_BUFFER_BYTES", 3000)
    pictures = {f"{i}.jpg": random.Random(i).randbytes(4000) for i in range(8)}
    (tmp_path / name).write_bytes(tar_bytes(pictures, mode))
    with serving(tmp_path, answers_ranges) as web:
        source = TarSource(f"{web.url}/{name}", pauses=QUICK)
        # Without parts of files the second block is where the whole file is asked for, again after each failure.
        in_parts, whole = ["cut", 503, None, None, 500, "cut", None, 429], [503, None, 500, None, 429, None]
        web.failures[f"/{name}"] = in_parts if answers_ranges else whole
        found = {item.id: source.reader(item) for item in source}
        assert found == {f"s/{name}": data for name, data in pictures.items()}
        assert web.failures[f"/{name}"] == []
        web.failures[f"/{name}"] = [503] * 50
        [failed] = source
        assert failed.id == name
        with pytest.raises(ItemError, match="unreadable: 503"):
            source.reader(failed)


def test_requests_are_tried_again_a_few_times(tmp_path, web):
    write(tmp_path, "a.jpg")
    reader = ItemReader(pauses=QUICK)
    item = SourceItem("a", f"{web.url}/a.jpg")

    def asked() -> int:
        count = web.requests["GET /a.jpg"]
        web.requests.clear()
        return count

    for failures in ([], [500], [503, 429], ["cut", 408]):
        web.failures["/a.jpg"] = list(failures)
        assert reader(item) == b"a.jpg"
        assert asked() == len(failures) + 1
    for failures, tries, reason in (
        ([500, 500, 500, 500], 3, "unreadable: 500"),
        ([404], 1, "missing: there is nothing at this address"),
        ([410], 1, "missing: "),
        ([403], 1, "no-permission: 403"),
        ([400], 1, "unreadable: 400"),
    ):
        web.failures["/a.jpg"] = list(failures)
        with pytest.raises(ItemError) as caught:
            reader(item)
        assert str(caught.value).startswith(reason)
        assert asked() == tries


def test_pauses_grow_and_end():
    import time
    from unittest.mock import patch

    def fail() -> None:
        raise ConnectionResetError("gone")

    with patch.object(time, "sleep") as sleep, pytest.raises(ItemError, match="unreadable: gone"):
        with_retries(fail)
    pauses = [call.args[0] for call in sleep.call_args_list]
    assert pauses == sorted(pauses) == list(ItemReader().pauses)
    assert 1 < len(pauses) < 6


def test_what_time_does_not_mend_is_not_tried_again():
    import socket

    unknown = OSError("cannot connect")
    unknown.os_error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")  # as aiohttp's errors have it
    for error, reason, is_final in (
        (unknown, "unreadable", True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "unreadable", False),
        (TimeoutError(), "unreadable", False),
        (FileNotFoundError("x"), "missing", True),
        (PermissionError("x"), "no-permission", True),
        (IsADirectoryError("x"), "not-a-file", True),
        (type("NoCredentialsError", (Exception,), {})("x"), "no-permission", True),
        (MemoryError(), "no-memory", True),
        (UserError("x"), "unreadable", True),
    ):
        failure, final = read_error(error)
        assert (failure.reason, final) == (reason, is_final)
        assert failure.detail


def test_a_server_that_is_not_there(tmp_path):
    with serving(tmp_path) as server:
        url = server.url
    with pytest.raises(ItemError, match=r"unreadable: Cannot connect to host 127\.0\.0\.1"):
        ItemReader(pauses=QUICK)(SourceItem("a", f"{url}/a.jpg"))
    with (
        pytest.raises(ItemError, match=r"unreadable: Cannot connect to host 127\.0\.0\.1"),
        AddressStream(url, QUICK) as stream,
    ):
        stream.read(1)


@pytest.mark.parametrize(
    ("origin", "target", "why"),
    [
        ("93.184.216.34", "169.254.169.254", "a link-local address"),
        ("127.0.0.1", "169.254.169.254", "a link-local address"),
        ("10.1.2.3", "fe80::1%eth0", "a link-local address"),
        ("93.184.216.34", "127.0.0.1", "this machine itself"),
        ("10.1.2.3", "::1", "this machine itself"),
        ("93.184.216.34", "10.1.2.3", "an address within a private network"),
        ("93.184.216.34", "fd00::1", "an address within a private network"),
        ("93.184.216.34", "8.8.8.8", None),
        ("10.1.2.3", "10.9.9.9", None),
        ("10.1.2.3", "8.8.8.8", None),
        ("127.0.0.1", "10.1.2.3", None),
        ("169.254.169.254", "169.254.169.254", None),
    ],
)
def test_where_servers_may_lead(origin, target, why):
    assert refusal(origin, target) == why


def test_no_server_leads_to_where_clouds_keep_credentials(tmp_path, web):
    write(tmp_path, "a.jpg", "b.jpg")
    reader = ItemReader(pauses=QUICK)
    for target in ("http://169.254.169.254/latest/meta-data", "//169.254.169.254/x", "http://[fe80::1]/x"):
        web.failures["/a.jpg"] = [target] * 5
        with pytest.raises(ItemError, match=r"no-permission: the server leads to 'http://.*', a link-local address"):
            reader(SourceItem("a", f"{web.url}/a.jpg"))
    web.failures["/a.jpg"] = [f"{web.url}/b.jpg", "/b.jpg"]
    assert reader(SourceItem("a", f"{web.url}/a.jpg")) == b"b.jpg"


def test_pages_without_pictures(tmp_path, web):
    write(tmp_path, "d/a.txt")
    with pytest.raises(UserError, match=r"/d' has no pictures .* One picture's address must end so too; others can"):
        open_source(f"{web.url}/d")
    with pytest.raises(UserError, match=r"/none' cannot be listed \(there is nothing at this address\)"):
        open_source(f"{web.url}/none")


def test_pages_that_link_in_circles_end(tmp_path, web, caplog):
    (tmp_path / "index.html").write_text('<a href="a.jpg">x</a> <a href="/">up</a> <a href="../b.jpg">x</a>')
    (tmp_path / "a.jpg").write_bytes(b"1")
    assert [item.id for item in open_source(web.url)] == ["a.jpg"]
    (tmp_path / "index.html").write_text(
        '<a href="caf%E9.jpg">x</a><a href="?C=N;O=D">sort</a><a href="x.jpg?v=1">x</a><a href="caf%e9.jpg">x</a>'
    )
    assert [(item.id, item.location) for item in open_source(web.url)] == [("caf%E9.jpg", f"{web.url}/caf%E9.jpg")]
    (tmp_path / "index.html").unlink()
    (tmp_path / "loop").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING):
        ids = [item.id for item in open_source(web.url)]
    assert ids[:2] == ["a.jpg", "loop/a.jpg"]
    assert 2 < len(ids) <= 100


class BreakingFile:
    """A file whose connection breaks after so many bytes; it can be sought in, or only read on."""

    def __init__(self, data: bytes, can_seek: bool, breaks_after: int) -> None:
        self.data, self.can_seek, self.position, self.left = data, can_seek, 0, breaks_after

    def seek(self, position: int) -> None:
        if not self.can_seek and position:
            raise ValueError("Cannot seek streaming HTTP file")
        self.position = position

    def read(self, size: int) -> bytes:
        if not self.left:
            raise ConnectionResetError("gone")
        part = self.data[self.position : self.position + min(size, 7, self.left)]
        self.position += len(part)
        self.left -= len(part)
        return part

    def close(self) -> None:
        pass


def opening(monkeypatch, files: list[BreakingFile]) -> AddressStream:
    file_system = SimpleNamespace(open=lambda *_, **__: files.pop(0))
    monkeypatch.setattr(streams, "open_file_system", lambda address: (file_system, address))
    return AddressStream("https://h/x", QUICK)


@pytest.mark.parametrize(("can_seek", "breaks"), [(True, [20, 20, 20, 20, 21]), (False, [20, 1, 45, 30, 60, 101])])
def test_a_stream_goes_on_where_it_broke(monkeypatch, can_seek, breaks):
    data = bytes(range(100))
    files = [BreakingFile(data, can_seek, count) for count in breaks]
    with opening(monkeypatch, files) as stream:
        assert stream.read(1000) == data[:7]
        assert b"".join(iter(lambda: stream.read(5), b"")) == data[7:]
        assert stream.read(5) == b""
    assert files == []


def test_a_file_that_shrinks_while_it_is_read(monkeypatch):
    files = [BreakingFile(bytes(50), False, 20), BreakingFile(bytes(10), False, 50), BreakingFile(bytes(10), False, 50)]
    with opening(monkeypatch, files) as stream, pytest.raises(ItemError, match=r"truncated: .* shorter"):
        stream.readall()
