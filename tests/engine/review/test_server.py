import io
import json
from contextlib import closing

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra 'review'")
from starlette.testclient import TestClient

from review_samples import ORDER, sample_collection, write_pictures
from tai_engine.disk_cache import DiskCache
from tai_engine.review import server
from tai_engine.review.guard import HEADERS, Guard
from tai_engine.review.journal import Journal, read_decisions
from tai_engine.review.server import review_app
from tai_engine.review.session import ReviewSession
from tai_engine.review.thumbnails import Thumbnails

PORT = 8770
ORIGIN = f"http://127.0.0.1:{PORT}"


class FakeHeatmaps:
    tags = ("dog",)

    def of(self, item_id, tag, size):
        return {"item": item_id, "tag": tag, "size": size}


@pytest.fixture
def guard():
    return Guard(PORT)


@pytest.fixture
def app(tmp_path, guard):
    collection = sample_collection(tmp_path)
    with (
        closing(Journal(tmp_path / "j.jsonl", tags_file="t", tags_sha256="0" * 64, by="anna")) as journal,
        closing(Thumbnails(collection, DiskCache(tmp_path / "cache", 10**7), workers=1)) as thumbnails,
    ):
        yield review_app(ReviewSession(collection, journal), thumbnails, guard, title="t", heatmaps=FakeHeatmaps())


@pytest.fixture
def stranger(app):
    return TestClient(app, base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def browser(stranger, guard):
    answer = stranger.get("/", params={"token": guard.token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return stranger


def post(client, path, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=data, headers={"origin": ORIGIN, "content-type": "application/json", **headers})


PATHS = [
    "/", "/assets/app.js", "/data/facts.json", "/data/columns.bin", "/data/rows/0.json", "/data/decisions.json",
    "/data/changes.json?since=0", "/data/thumbnails/0.jpg", "/data/pictures/0.jpg",
    "/data/heatmaps/0.json?tag=dog&width=6&height=4", "/nothing",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_strangers_see_nothing(stranger, path):
    for answer in (stranger.get(path), stranger.get("/", params={"token": "guess"})):
        assert answer.status_code == 403
        assert "Open the address" in answer.text
        assert "cookie" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_keeps_the_page_shut(browser, path):
    answer = browser.get(path)
    assert answer.status_code == (404 if path == "/nothing" else 200)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_what_the_page_reads(browser):
    assert browser.get("/").headers["content-type"].startswith("text/html")
    assert browser.get("/assets/app.js").headers["content-type"].startswith("text/javascript")
    facts = browser.get("/data/facts.json").json()
    assert (facts["title"], facts["mode"], facts["pictures"], facts["heatmaps"]) == ("t", "live", 5, ["dog"])
    assert browser.get("/data/rows/0.json").json()["ids"] == ORDER
    picture = browser.get("/data/thumbnails/0.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    for path in ("/data/thumbnails/0.jpg", "/data/pictures/0.jpg"):
        with Image.open(io.BytesIO(browser.get(path).content)) as image:
            assert (image.format, image.size) == ("JPEG", (60, 40))
    heat = browser.get("/data/heatmaps/1.json", params={"tag": "dög", "width": 60, "height": 40}).json()
    assert heat == {"item": "a.jpg", "tag": "dög", "size": [60, 40]}


@pytest.mark.parametrize(
    "path",
    [
        "/data/thumbnails/4.jpg",  # not there
        "/data/thumbnails/5.jpg",
        "/data/thumbnails/-1.jpg",
        "/data/thumbnails/a.jpg",
        "/data/thumbnails/99999999999999999999.jpg",
        "/data/thumbnails/..%2f..%2ftags.parquet",
        "/data/thumbnails/%2e%2e/0.jpg",
        "/data/pictures/a.jpg",
        "/data/pictures/../../tags.parquet",
        "/data/pictures/%2Fetc%2Fpasswd",
        "/data/rows/1.json",
        "/data/rows/0.json/..",
        "/assets/../page.py",
        "/assets/..%2Fpage.py",
        "/assets/%2e%2e%2fserver.py",
        "/assets/page.html",
        "/assets/",
        "/assets/nothing.js",
        "/assets/app.js%00",
        "/data/",
        "//etc/passwd",
    ],
)
def test_ids_never_paths(browser, path):
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize("query", ["", "tag=dog", "tag=dog&width=0&height=4", "tag=dog&width=a&height=4"])
def test_heatmaps_need_a_size(browser, query):
    assert browser.get(f"/data/heatmaps/0.json?{query}").status_code == 400


def test_decisions_are_in_the_journal_before_they_are_answered(browser, tmp_path):
    answer = post(browser, "/data/decide", {"changes": [{"pictures": [1], "accept": ["dog"], "reject": ["cat"]}]})
    assert answer.status_code == 200
    assert answer.json()["pictures"]["1"]["verdicts"] == {"dog": "accept", "cat": "reject"}
    kept = read_decisions(tmp_path / "j.jsonl")
    assert kept["a.jpg"].present == ("dog",)
    assert kept["a.jpg"].by == "anna"
    assert browser.get("/data/changes.json?since=0").json()["pictures"] == answer.json()["pictures"]
    assert post(browser, "/data/undo", {"of": 1}).json()["pictures"] == {"1": None}
    assert post(browser, "/data/undo", {"of": 1}).status_code == 409
    assert "another tab" in post(browser, "/data/undo", {"of": 1}).json()["error"]
    assert post(browser, "/data/redo", {"of": 1}).status_code == 200
    assert post(browser, "/data/favourites", {"tags": ["owl"]}).json()["favourites"] == ["owl"]
    assert browser.get("/data/decisions.json").json()["revision"] == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"[" * 100_000, 400),
        (b'{"changes": 1}', 400),
        (b'{"changes": [{"pictures": [0], "add": ["<script>"]}]}', 400),
        (b'{"changes": [{"pictures": [0], "none": NaN}]}', 400),
        (b'{"changes": [{"pictures": ["../../etc/passwd"], "none": true}]}', 400),
        (b'{"changes": [{"pictures": [1e99], "none": true}]}', 400),
    ],
)
def test_nonsense_is_refused_in_a_sentence(browser, tmp_path, body, status):
    answer = post(browser, "/data/decide", body)
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 10
    assert read_decisions(tmp_path / "j.jsonl").revision == 0


def test_posts_of_other_kinds_and_sizes(browser, monkeypatch):
    assert post(browser, "/data/decide", {}, **{"content-type": "text/plain"}).status_code == 415
    assert browser.get("/data/decide").status_code == 405
    assert post(browser, "/data/facts.json", {}).status_code == 405
    monkeypatch.setattr(server, "MAX_REQUEST_BYTES", 100)
    assert post(browser, "/data/decide", b" " * 101).status_code == 413
    assert browser.get("/data/changes.json").status_code == 400
    assert browser.get("/data/changes.json?since=x").status_code == 400


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9999", "http://evil.example", "null"])
def test_other_pages_cannot_decide_even_with_the_cookie(browser, tmp_path, origin):
    body = {"changes": [{"pictures": [1], "none": True}]}
    assert post(browser, "/data/decide", body, origin=origin).status_code == 403
    assert post(browser, "/data/decide", body, host=f"evil.example:{PORT}").status_code == 403
    assert read_decisions(tmp_path / "j.jsonl").revision == 0


def test_a_full_disk_is_said(browser, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    answer = post(browser, "/data/decide", {"changes": [{"pictures": [1], "none": True}]})
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["error"]


def test_a_picture_that_has_gone_since(browser, tmp_path):
    (tmp_path / "pictures" / "a.jpg").unlink()
    write_pictures(tmp_path / "pictures", ["other.jpg"])
    answer = browser.get("/data/thumbnails/1.jpg")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("missing: ")


def test_what_goes_wrong_unexpectedly_is_said_without_its_inside(app, guard, monkeypatch):
    client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
    client.get("/", params={"token": guard.token})
    monkeypatch.setattr(server.page_data, "rows", lambda *_: 1 / 0)
    answer = client.get("/data/rows/0.json")
    assert answer.status_code == 500
    assert "division" not in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
