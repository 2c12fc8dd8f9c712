import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tai_engine.addresses import is_address
from tai_engine.errors import UserError
from tai_engine.sources.ids import PictureColumns, id_from_path, path_from_id, picture_path, spelt_as_known
from tai_engine.tables import Row, Table

# Bytes that make escapes, look like escapes or are half of a UTF-8 character are drawn more often than chance would.
NAMES = st.lists(
    st.sampled_from([b"%", b"2", b"5", b"F", b"f", b"\xff", b"\xc3", b"\xa9", b"\xed\xb2\x80", b"a", b" "])
)


@pytest.mark.parametrize(
    ("path", "item_id"),
    [
        (b"a/b.jpg", "a/b.jpg"),
        (b"./a//b.jpg", "a/b.jpg"),
        ("Katzen über Bäume.jpg", "Katzen über Bäume.jpg"),
        (b"caf\xe9.jpg", "caf%E9.jpg"),
        (b"100% cotton.jpg", "100% cotton.jpg"),
        (b"a%E9.jpg", "a%25E9.jpg"),
        (b"a%e9.jpg", "a%e9.jpg"),
        (b"a%\xe9.jpg", "a%%E9.jpg"),
        (b"%%41", "%%2541"),
        (b"%25", "%2525"),
        ("caf\udce9.jpg", "caf%E9.jpg"),
    ],
)
def test_ids_by_hand(path, item_id):
    assert id_from_path(path) == item_id
    assert os.fsencode(path_from_id(item_id)) == os.path.normpath(os.fsencode(path))


@given(st.one_of(NAMES.map(b"".join), st.binary()).filter(lambda b: b and b"/" not in b and b"\0" not in b))
def test_every_file_name_comes_back(name):
    item_id = id_from_path(name)
    item_id.encode("utf-8")
    assert os.fsencode(path_from_id(item_id)) == name


def id_of_row(values, path):
    path.write_text(json.dumps(values))
    table = Table(path, kind="list")
    return PictureColumns(table).id_of(Row("line 7", values))


def test_rows_of_lists(tmp_path):
    listing = tmp_path / "list.jsonl"
    assert id_of_row({"id": "x", "path": "a.jpg"}, listing) == "x"
    assert id_of_row({"id": 632, "path": "a.jpg"}, listing) == "632"
    assert id_of_row({"id": "", "image": "./s/a.jpg"}, listing) == "s/a.jpg"
    assert id_of_row({"file_name": "b.jpg", "path": "a.jpg"}, listing) == "a.jpg"
    assert id_of_row({"path": str(tmp_path / "s" / "a.jpg")}, listing) == "s/a.jpg"
    assert id_of_row({"path": "/elsewhere/a.jpg"}, listing) == "/elsewhere/a.jpg"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "In line 7 of .*list.jsonl' no column names the picture: it has none; .*path, file_name, image"),
        ({"path": ""}, "no column names the picture"),
        ({"path": ["a"]}, r"The path in line 7 .* is \['a'\]; it must be a path as text"),
        ({"path": "a\0b"}, "must be a path as text"),
        ({"id": True}, "The id in line 7 .* is True"),
        ({"id": 1.5}, "The id in line 7 .* is 1.5"),
        ({"id": "\ud800"}, "not valid Unicode"),
        ({"path": "\ud800"}, "not valid Unicode"),
    ],
)
def test_rows_without_a_usable_name(row, message, tmp_path):
    with pytest.raises(UserError, match=message):
        id_of_row(row, tmp_path / "list.jsonl")


def test_addresses_are_their_own_ids(tmp_path):
    for address in (
        "https://h/a%20b//c.jpg?w=1",
        "s3://b/é.jpg",
        "zip://x.jpg::memory://a.zip",
        "simplecache::s3://b/c",
    ):
        assert is_address(address)
        assert id_of_row({"image": address}, tmp_path / "l.jsonl") == address
    for path in ("a.jpg", "/a//b", "a::b.jpg", "dir/http://x", "a:/b", "", "://x", "1s://x"):
        assert not is_address(path)


def test_a_picture_is_found_within_its_folder(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "link").symlink_to("sub")
    folder = tmp_path / "in"
    assert picture_path(folder, "sub/a.jpg") == folder / "sub" / "a.jpg"
    assert picture_path(folder, "link/a.jpg") == folder / "link" / "a.jpg"
    assert os.fsencode(picture_path(folder, "caf%E9.jpg").name) == b"caf\xe9.jpg"


@pytest.mark.parametrize(
    "item_id",
    ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "%2E%2E/a.jpg", "", ".", "a\0b", "https://x.org/a.jpg", "out/a.jpg"],
)
def test_ids_that_lead_out_of_the_folder_are_refused(tmp_path, item_id):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="the id"):
        picture_path(folder, item_id)


def test_ids_are_respelt_only_where_that_finds_them():
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    assert spelt_as_known([composed, "a.jpg"], {apart, "a.jpg"}.__contains__) == [apart, "a.jpg"]
    assert spelt_as_known([apart], {composed}.__contains__) == [composed]
    assert spelt_as_known([apart], {composed, apart}.__contains__) == [apart]
    assert spelt_as_known([composed], {"other.jpg"}.__contains__) == [composed]
    assert spelt_as_known([apart, composed], {composed}.__contains__) == [apart, composed]  # two names stay two
    assert spelt_as_known([], {composed}.__contains__) == []
