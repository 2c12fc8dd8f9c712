import bz2
import gzip
import io
import logging
import lzma
import os
import pickle
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picture_server import tar_bytes
from tai_engine.errors import REASONS, ItemError, UserError
from tai_engine.sources import SourceItem, open_source, tar
from tai_engine.sources.source import SourceOptions

PICTURES = {f"{i:04d}.jpg": bytes([i]) * (700 * i + 1) for i in range(5)}
MODES = {"s.tar": "w", "s.tar.gz": "w:gz", "s.tgz": "w:gz"}


def contents(source) -> dict[str, bytes | str]:
    """Bytes, or the reason, of every item by its id; readers and items travel as to another process."""
    found: dict[str, bytes | str] = {}
    for item in source:
        reader, copy = pickle.loads(pickle.dumps((source.reader, item)))
        assert item.id not in found
        try:
            found[item.id] = reader(copy)
        except ItemError as error:
            found[item.id] = str(error)
    assert {text.partition(":")[0] for text in found.values() if isinstance(text, str)} <= set(REASONS)
    return found


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_names_with_backslashes_are_excluded_by_their_folders(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes({"x\\a.jpg": b"1", "x\\y\\b.jpg": b"2", "z\\c.jpg": b"3"}))
    source = open_source(tmp_path / "a.tar", SourceOptions(exclude=("x/y",)))
    assert [item.id for item in source] == ["a/x\\a.jpg", "a/z\\c.jpg"]
    with pytest.raises(UserError, match=r"no pictures .*\. Passed over by --exclude: 3\.$"):
        open_source(tmp_path / "a.tar", SourceOptions(exclude=("x", "z")))


@pytest.mark.parametrize("name", MODES)
def test_pictures_with_captions_beside_them(tmp_path, name):
    members = {}
    for picture, data in PICTURES.items():
        members |= {picture: data, picture.replace("jpg", "txt"): b"a caption", picture.replace("jpg", "json"): b"{}"}
    (tmp_path / name).write_bytes(tar_bytes(members | {"0004.seg.png": b"mask"}, MODES[name]))
    source = open_source(tmp_path / name)
    assert source.describe() == f"the archive {tmp_path / name}"
    assert contents(source) == {f"s/{k}": v for k, v in PICTURES.items()} | {"s/0004.seg.png": b"mask"}
    assert contents(source) == contents(source)
    assert {item.modified_ns for item in source} == {1_000_000_000_250_000_000}
    assert [item.size for item in source] == [1, 701, 1401, 2101, 2801, 4]
    # Where bytes lie as they are they are not read on the way.
    assert {item.data is None for item in source} == {name == "s.tar"}
    assert source.estimate_count() == (6 if name == "s.tar" else None)


def test_packing_is_told_by_the_bytes_not_by_the_name(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes(PICTURES, "w:gz"))
    (tmp_path / "b.tgz").write_bytes(tar_bytes(PICTURES))
    assert list(contents(open_source(tmp_path / "a.tar")).values()) == list(PICTURES.values())
    assert list(contents(open_source(tmp_path / "b.tgz")).values()) == list(PICTURES.values())


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_with_long_and_foreign_names(tmp_path, kind):
    names = ["a.jpg", "Bäume/ü.jpg", "d/" * 40 + "e.jpg"] + (
        ["n" * 200 + ".jpg"] if kind != tarfile.USTAR_FORMAT else []
    )
    with tarfile.open(tmp_path / "s.tar", "w", format=kind) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    assert contents(open_source(tmp_path / "s.tar")) == {f"s/{name}": b"abc" for name in names}


def test_many_archives(tmp_path):
    for i in range(3):
        (tmp_path / f"s-{i}.tar").write_bytes(tar_bytes({"a.jpg": b"%d" % i, "b.jpg": b"b"}))
    source = open_source(f"{tmp_path}/s-{{0..2}}.tar")
    assert source.describe() == f"the 3 archives {tmp_path}/s-{{0..2}}.tar"
    assert contents(source) == {f"s-{i}/{n}.jpg": (b"%d" % i if n == "a" else b"b") for i in range(3) for n in "ab"}
    assert contents(open_source(f"{tmp_path}/*.tar")) == contents(source)
    assert source.estimate_count() == 6


def test_how_many_there_are_is_estimated_from_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "_COUNTED", 20)
    for i in range(2):
        (tmp_path / f"s-{i}.tar").write_bytes(tar_bytes({f"{j}.jpg": bytes(5000) for j in range(200)}))
    (tmp_path / "t-0.tar").write_bytes(tar_bytes({f"{j}.jpg": bytes(5000) for j in range(15)})[:40000])
    assert open_source(f"{tmp_path}/s-*.tar").estimate_count() == pytest.approx(400, rel=0.02)
    assert open_source(f"{tmp_path}/t-0.tar").estimate_count() == 6  # the sixth is cut off


def test_odd_members_are_safe(tmp_path, caplog):
    zero_byte = special("zero.jpg", tarfile.REGTYPE)
    zero_byte.pax_headers = {"path": "zero\0byte.jpg"}
    members = [
        ("/etc/a.jpg", b"1"),
        ("../../up.jpg", b"2"),
        ("./x//y/../b.jpg", b"3"),
        (".hidden.jpg", b"-"),
        ("x/._b.jpg", b"-"),
        (".git/c.jpg", b"-"),
        special("folder.jpg", tarfile.DIRTYPE),
        special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "etc/a.jpg"),
        special("pipe.jpg", tarfile.FIFOTYPE),
        ("etc/a.jpg", b"the same again"),
        zero_byte,
        (os.fsdecode(b"caf\xe9.JPG"), b"5"),
        ("empty.jpg", b""),
        ("http://h/q.jpg", b"6"),
        ("notes.txt", b"-"),
    ]
    (tmp_path / "s.tar").write_bytes(tar_bytes(members))
    with caplog.at_level(logging.WARNING):
        found = contents(open_source(tmp_path / "s.tar"))
    no_file = "not-a-file: it is a link or a device, which are not followed inside archives"
    assert found == {
        "s/etc/a.jpg": b"1",
        "s/up.jpg": b"2",
        "s/x/b.jpg": b"3",
        "s/link.jpg": no_file,
        "s/hard.jpg": no_file,
        "s/pipe.jpg": no_file,
        "s/zero%00byte.jpg": "empty: the file has no bytes",
        "s/caf%E9.JPG": b"5",
        "s/empty.jpg": "empty: the file has no bytes",
        "s/http:/h/q.jpg": b"6",
    }
    assert "s.tar' has 'etc/a.jpg' more than once: the first counts" in caplog.text


def test_members_with_holes_fail(tmp_path):
    info = tarfile.TarInfo("a.bmp")
    info.size = 4
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info.size = 1024
        archive.addfile(info, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512))
    (tmp_path / "s.tar").write_bytes(file.getvalue())
    assert list(contents(open_source(tmp_path / "s.tar")).values()) == [
        "unreadable: it is stored with holes; pack the archive without --sparse"
    ]


def write_three(folder: Path, damaged: bytes) -> str:
    """Three archives, the middle one as given."""
    for i in "ac":
        (folder / f"{i}.tar").write_bytes(tar_bytes({"1.jpg": b"x"}))
    (folder / "b.tar").write_bytes(damaged)
    return f"{folder}/{{a,b,c}}.tar"


WHOLE = tar_bytes(PICTURES)


def damaged_at(position: int, data: bytes) -> bytes:
    return WHOLE[:position] + data + WHOLE[position + len(data) :]


# Where the header of each picture begins, by hand: a header with the time as PAX keeps it takes three blocks.
HEADERS = [0]
for picture_data in PICTURES.values():
    HEADERS.append(HEADERS[-1] + 3 * 512 + -(-len(picture_data) // 512) * 512)


@pytest.mark.parametrize(
    ("data", "pictures", "failure"),
    [
        (WHOLE[: HEADERS[4] + 100], 4, "truncated: the archive is cut off, after b/0003.jpg"),
        (WHOLE[: HEADERS[2] + 3 * 512 + 600], 2, "truncated: a header or member is damaged (unexpected end of data), "),
        (damaged_at(HEADERS[3], b"damage"), 3, "broken: a header is damaged, after b/0002.jpg"),
        (damaged_at(HEADERS[3] + 1024, b"damage"), 3, "broken: a header or member is damaged ("),
        (damaged_at(HEADERS[2], bytes(1024)), 2, "broken: there is more behind its end: it is damaged, or several "),
        (WHOLE + WHOLE, 5, "broken: there is more behind its end"),
        (b"<html>not found</html>", 0, "truncated: a header or member is damaged (truncated header)"),
        (b"<html>" * 1000, 0, "broken: a header or member is damaged ("),
        (b"", 0, "empty: the archive has no bytes"),
        (gzip.compress(WHOLE)[:-40], None, "truncated: the archive is cut off, "),
        (gzip.compress(WHOLE)[:-8] + b"12345678", 5, "broken: its gzip packing is damaged (CRC check failed"),
        (b"\x1f\x8bnonsense", 0, "broken: its gzip packing is damaged ("),
    ],
)
def test_damage_ends_an_archive_but_not_the_run(tmp_path, caplog, data, pictures, failure):
    source = open_source(write_three(tmp_path, data))
    with caplog.at_level(logging.WARNING):
        found = contents(source)
    assert found.pop("a/1.jpg") == found.pop("c/1.jpg") == b"x"
    assert found.pop("b.tar").startswith(failure)
    assert source.left_out == 1
    assert f"archive '{tmp_path}/b.tar' is left out" in caplog.text
    whole = [data for data in found.values() if isinstance(data, bytes)]
    assert whole == list(PICTURES.values())[: len(whole)]
    if pictures is not None:
        assert len(whole) == pictures
    # A picture of which only the beginning is there fails by itself.
    assert all(str(text).startswith("truncated: ") for text in list(found.values())[len(whole) :])


def test_an_archive_cut_between_members_has_what_it_has(tmp_path):
    found = contents(open_source(write_three(tmp_path, WHOLE[: HEADERS[3]])))
    assert [k for k in found if k.startswith("b")] == ["b/0000.jpg", "b/0001.jpg", "b/0002.jpg"]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=600), st.booleans())
@example(0, b"\xfd7zXZ\x00", False)  # as if it were packed by xz
def test_no_damage_escapes_or_changes_what_came_before(position, noise, is_packed):
    data = damaged_at(position, noise)
    file = io.BufferedReader(io.BytesIO(gzip.compress(data, 1) if is_packed else data))
    names: list[str] = []
    reason = None
    try:
        names.extend(member.name for member in tar.TarStream(file, not is_packed).members())
    except ItemError as error:
        reason = error.reason
    assert reason is None or reason in REASONS
    before = [name for name, end in zip(PICTURES, HEADERS[1:], strict=True) if end <= position]
    assert names[: len(before)] == before


def test_a_header_cannot_ask_for_much_memory(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "s.tar").write_bytes(tar_bytes({"a.jpg": b"1"})[:2048] + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    found = contents(open_source(tmp_path / "s.tar"))
    assert found["s.tar"] == "broken: a header of 1,099,511,627,776 bytes, after s/a.jpg"


def test_large_members_do_not_travel_with_their_items(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "MAX_MEMBER_BYTES", 2000)
    for name, mode in MODES.items():
        (tmp_path / name).write_bytes(tar_bytes(PICTURES, mode))
    found = contents(open_source(tmp_path / "s.tgz"))
    assert [found[f"s/000{i}.jpg"] for i in (3, 4)] == [
        f"too-large: {n} bytes, 2,000 are allowed" for n in ("2,101", "2,801")
    ]
    assert found["s/0002.jpg"] == PICTURES["0002.jpg"]
    assert contents(open_source(tmp_path / "s.tar"))["s/0004.jpg"] == PICTURES["0004.jpg"]


def test_archives_that_go_away_during_the_run(tmp_path):
    source = open_source(write_three(tmp_path, WHOLE))
    (tmp_path / "b.tar").unlink()
    assert list(contents(source).items())[1] == ("b.tar", "missing: No such file or directory")
    (tmp_path / "b.tar").mkdir()
    assert contents(source)["b.tar"] == "not-a-file: it is a folder"


def test_a_mended_archive_gives_its_pictures(tmp_path):
    spec = write_three(tmp_path, WHOLE[:3000])
    source = open_source(spec)
    failed = next(item for item in source if item.id == "b.tar")
    assert (failed.size, failed.modified_ns) == (3000, (tmp_path / "b.tar").stat().st_mtime_ns)
    (tmp_path / "b.tar").write_bytes(WHOLE)
    assert source.left_out == 1
    assert [item.id for item in source] == ["a/1.jpg", *(f"b/{name}" for name in PICTURES), "c/1.jpg"]
    assert source.left_out == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            tar_bytes({"a.txt": b"1", ".b.jpg": b"2"}),
            r"The archive .*s\.tar has no pictures in it or below it: their names must.*There is: 1 \.txt\.",
        ),
        (tar_bytes({}), "The archive .* has no pictures"),
        (b"nonsense", r"The archive '.*s\.tar' cannot be read \(.*truncated header.*\): check it"),
        (b"", r"cannot be read \(the archive has no bytes\)"),
        (
            tar_bytes({"a.jpg": random.Random(0).randbytes(5000)}, "w:gz")[:3000],
            r"cannot be read \(the archive is cut off\)",
        ),
    ],
)
def test_single_archives_that_are_no_source(tmp_path, data, message):
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "s.tar")


def test_archives_in_memory(memory):
    memory.pipe({"/d/s-0.tar": tar_bytes(PICTURES), "/d/s-1.tar.gz": tar_bytes({"x.png": b"x"}, "w:gz")})
    source = open_source("memory://d/s-*")
    assert contents(source) == {f"s-0/{k}": v for k, v in PICTURES.items()} | {"s-1/x.png": b"x"}
    assert source.estimate_count() is None
    assert next(iter(source)) == SourceItem(
        "s-0/0000.jpg", "memory://d/s-0.tar", 1, 1_000_000_000_250_000_000, data=PICTURES["0000.jpg"]
    )
    found = contents(open_source("memory://d/s-{0..1}.tar"))
    assert found["s-1.tar"] == "missing: there is nothing at this address"
    with pytest.raises(UserError, match=r"archive 'memory://d/s-7\.tar' cannot be read \(there is nothing at this"):
        open_source("memory://d/s-{7..9}.tar")


@pytest.mark.parametrize(
    ("data", "packer"),
    [
        (lzma.compress(tar_bytes(PICTURES)), "it is packed by xz"),
        (bz2.compress(tar_bytes(PICTURES)), "it is packed by bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "it is packed by Zstandard"),
        (b"PK\3\4" + bytes(99), "it is a zip archive"),
    ],
)
def test_other_packing_is_named_and_not_called_damage(tmp_path, data, packer):
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "b.tar").write_bytes(tar_bytes(PICTURES))
    message = rf"'.*a\.tar' cannot be read \({packer}, and only gzip is read: unpack it, or pack it with gzip\): check"
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "a.tar")
    found = contents(open_source(tmp_path / "*.tar"))
    assert found["a.tar"] == f"unsupported: {packer}, and only gzip is read: unpack it, or pack it with gzip"
    assert len(found) == 1 + len(PICTURES)


@pytest.mark.parametrize("name", MODES)
def test_members_of_one_name_are_warned_of_once(tmp_path, caplog, name):
    members = [(f"{n % 3}.jpg", b"%d" % n) for n in range(12)]
    (tmp_path / name).write_bytes(tar_bytes(members, MODES[name]))
    source = open_source(tmp_path / name)
    source.estimate_count()
    assert contents(source) == {"s/0.jpg": b"0", "s/1.jpg": b"1", "s/2.jpg": b"2"}
    (message,) = caplog.messages
    assert message == f"the archive '{tmp_path / name}' has '0.jpg' and 8 more names more than once: the first counts"


@pytest.mark.parametrize("name", MODES)
def test_members_without_a_suffix_are_told_by_how_they_begin(tmp_path, name):
    png = b"\x89PNG\r\n\x1a\n" + bytes(range(200)) * 30
    members = {"a.jpg": b"1", "x/0f3": png, "README": b"words", "e": b"", "y/1a2": png[:9], "z.jpg": b"2"}
    (tmp_path / name).write_bytes(tar_bytes(members, MODES[name]))
    source = open_source(tmp_path / name)
    assert contents(source) == {"s/a.jpg": b"1", "s/x/0f3": png, "s/y/1a2": png[:9], "s/z.jpg": b"2"}
    assert list(source.remarks) == ["Passed over, being no pictures by their names: 2 without a suffix."]


@pytest.mark.parametrize(("size", "mtime"), [(2**62, 0), (2**70, 2**80), (10**15, -(2**80))])
def test_numbers_in_headers_that_no_64_bits_hold(tmp_path, size, mtime):
    info = tarfile.TarInfo("a.jpg")
    info.size, info.mtime = size, mtime
    first = tarfile.TarInfo("0.jpg")
    first.size = 1
    headers = [one.tobuf(tarfile.GNU_FORMAT) for one in (first, info)]
    (tmp_path / "s.tar").write_bytes(headers[0] + b"1".ljust(512, b"\0") + headers[1] + bytes(2048))
    items = [item for item in open_source(tmp_path / "s.tar") if item.failure is None]
    assert items[0].id == "s/0.jpg"
    assert all(item.size < 2**63 and abs(item.modified_ns or 0) < 2**63 for item in items)
    found = contents(open_source(tmp_path / "s.tar"))
    assert found.pop("s/0.jpg") == b"1"
    assert found
    assert all(text.startswith(("too-large: ", "broken: ", "truncated: ")) for text in found.values())
