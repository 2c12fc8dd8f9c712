"""``tai reproduce``: the list, a miniature, and what is missing."""

from tai_engine.reproducing.row_protocol import protocol_names


def test_the_list_has_every_published_figure(tai):
    found = {row["name"]: row["published"] for row in tai("reproduce", "--list", "--json").json()}
    assert tuple(found) == protocol_names()
    assert found == {
        "taidpt-coco-16-novel": 59.2,
        "taidpt-coco-lt": 56.23,
        "taidpt-coco2014": 65.1,
        "taidpt-dualcoop-coco2014-10": 81.5,
        "taidpt-dualcoop-voc2007-10": 93.3,
        "taidpt-nuswide": 46.5,
        "taidpt-voc-mlt": 83.75,
        "taidpt-voc2007": 88.3,
    }
    assert "88.3" in tai("reproduce", "--list").stdout


def test_a_miniature(tai, tmp_path):
    outcome = tai("reproduce", "taidpt-voc-mlt", "--miniature", "--out", tmp_path / "o", "--device", "cpu")
    assert outcome.status == 0
    assert "published 83.75 %" in outcome.stdout
    assert "all groups" in outcome.stdout
    assert "the figures say nothing" in outcome.stderr
    again = tai("reproduce", "taidpt-voc-mlt", "--miniature", "--out", tmp_path / "o", "--device", "cpu", "--json")
    assert again.json()[0]["protocol"] == "taidpt-voc-mlt"


def test_what_cannot_be_done(tai, tmp_path):
    for arguments, words in (
        ((), "--list"),
        (("taidpt-voc2007", "--data", tmp_path), "VOCtest_06-Nov-2007.tar"),
        (("none",), "Unknown protocol"),
        (("taidpt-voc2007", "--miniature", "--model", "RN50"), "leave --model out"),
    ):
        outcome = tai("reproduce", *arguments, "--out", tmp_path / "o")
        assert outcome.status == 2
        assert words in outcome.stderr
