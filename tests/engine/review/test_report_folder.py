import base64
import json
import shutil
from collections import namedtuple

import pytest
from PIL import Image

from review_samples import ORDER, sample_collection
from tai_engine.errors import UserError
from tai_engine.review import page_data
from tai_engine.review import report_folder as module
from tai_engine.review.decisions import Decisions
from tai_engine.review.report_folder import ReportEstimate, estimate_report, write_report


@pytest.fixture
def collection(tmp_path):
    return sample_collection(tmp_path)


def decided():
    decisions = Decisions()
    changes = [{"ids": ["a.jpg"], "accept": ["dog"]}]
    decisions.apply({"revision": 1, "act": "decide", "by": "anna", "at": "now", "changes": changes})
    return decisions


def write(collection, out, **changes):
    options = {"title": "t", "side": 64, "workers": 1, "estimate": ReportEstimate(4, 1000, 10.0)}
    return write_report(collection, out, decided(), **{**options, **changes})


def read(folder, name):
    text = (folder / "data" / f"{name}.js").read_text(encoding="utf-8")
    assert text.startswith(f'taiReport("{name}",')
    assert text.endswith(");\n")
    return json.loads(text[len(f'taiReport("{name}",') : -3])


def test_a_folder_with_all_that_the_page_reads(collection, tmp_path):
    calls = []
    out = tmp_path / "new" / "report"
    result = write(collection, out, progress=lambda done, total: calls.append((done, total)))
    assert (result.pictures, result.failed, result.failed_count) == (4, (), 0)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "index.html", "assets/app.js", "assets/style.css", "assets/icon.svg",
        "data/facts.js", "data/columns.js", "data/decisions.js", "data/rows/0.js",
        *(f"data/thumbnails/{n}.jpg" for n in range(4)),
    }  # fmt: skip
    assert result.bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert read(out, "facts")["mode"] == "report"
    assert base64.b64decode(read(out, "columns")) == page_data.columns(collection)
    assert read(out, "rows/0")["ids"] == ORDER
    decisions = read(out, "decisions")
    assert decisions["pictures"]["1"]["verdicts"] == {"dog": "accept"}
    assert decisions["undo"] is None
    with Image.open(out / "data/thumbnails/2.jpg") as image:
        assert image.size == (60, 40)
    assert {path.name for path in out.parent.iterdir()} == {"report"}


def test_pictures_that_cannot_be_shown_are_named_with_their_reason(collection, tmp_path):
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "pictures" / "d.jpg").unlink()
    (tmp_path / "pictures" / "d.jpg").symlink_to("/etc/hostname")
    result = write(collection, tmp_path / "report")
    assert result.pictures == 2
    failed = dict(result.failed)
    assert failed["a.jpg"].startswith("unknown-format: ")
    assert failed["d.jpg"].startswith("outside: ")
    assert not (tmp_path / "report/data/thumbnails/1.jpg").exists()
    assert (tmp_path / "report/data/thumbnails/2.jpg").exists()


def test_an_older_report_is_replaced_and_nothing_else(collection, tmp_path):
    out = tmp_path / "report"
    write(collection, out)
    (out / "data/thumbnails/99.jpg").write_bytes(b"old")
    write(collection, out)
    assert not (out / "data/thumbnails/99.jpg").exists()
    for mine in ("photos", "file"):
        path = tmp_path / mine
        path.mkdir() if mine == "photos" else None
        path = path / "x.jpg" if mine == "photos" else path
        path.write_bytes(b"mine")
        with pytest.raises(UserError, match="is no report"):
            write(collection, tmp_path / mine)
        assert path.read_bytes() == b"mine"
    (tmp_path / "bare").mkdir()
    write(collection, tmp_path / "bare")


def test_what_goes_wrong_leaves_the_older_report(collection, tmp_path, monkeypatch):
    out = tmp_path / "report"
    write(collection, out)
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(
            module.page_data, "rows", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(UserError, match="disk is full"):
            write(collection, out)
    with monkeypatch.context() as patch:
        patch.setattr(module.page_data, "rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(collection, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_room_is_said_before(collection, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(UserError, match=r"about 6 MB, and 5 MB are free.*--thumbnail-size"):
        write(collection, tmp_path / "report", estimate=ReportEstimate(4, 6_000_000, 10.0))
    assert not (tmp_path / "report").exists()


def test_the_estimate_reckons_with_thumbnails_of_a_sample(collection, tmp_path):
    estimate = estimate_report(collection, 64, 1)
    result = write(collection, tmp_path / "report", estimate=estimate)
    sizes = [path.stat().st_size for path in (tmp_path / "report/data/thumbnails").iterdir()]
    assert estimate.pictures == 4
    assert estimate.thumbnail_bytes == pytest.approx(sum(sizes) / 4)
    assert estimate.bytes == pytest.approx(result.bytes, rel=0.1)
