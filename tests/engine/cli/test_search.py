"""``tai search`` and ``tai explain`` from the shell, on a tiny model."""

import json

import numpy as np
from PIL import Image


def test_words_and_likeness(tai, filled_store, picture_folder, tmp_path):
    sheet = tmp_path / "found.png"
    arguments = ("search", filled_store, "a dog on a beach", "a cat", "--top", 2, "--sheet", sheet)
    outcome = tai(*arguments, "--images", picture_folder, "--json")
    assert outcome.status == 0
    rows = json.loads("[" + ",".join(outcome.stdout.splitlines()) + "]")
    assert [(row["query"], row["rank"]) for row in rows] == [
        ("a dog on a beach", 1), ("a dog on a beach", 2), ("a cat", 1), ("a cat", 2),
    ]  # fmt: skip
    assert rows[0]["score"] >= rows[1]["score"]
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 200
    asked = ("--like", "0.png", "--like", picture_folder / "1.png")
    like = tai("search", filled_store, *asked, "--top", 5, "--json").json()
    # Pictures of noise are alike to a model of random weights: that each is like itself is all that can be said.
    found = {(row["query"], row["id"]): row["score"] for row in like}
    assert len(like) == 10
    assert found["0.png", "0.png"] > 0.99
    assert found[str(picture_folder / "1.png"), "1.png"] > 0.99


def test_searches_that_ask_for_nothing_are_refused(tai, filled_store, tmp_path):
    for arguments, words in (
        ((), "Say what to look for"),
        (("dog", "--sheet", tmp_path / "x.png"), "name their folder with --images"),
        (("dog", "--score", "finest"), "Unknown score 'finest'; did you mean 'fine'"),
        (("dog", "--background", "voc20", "--top", 0), "pictures to find is 0"),
        (("--like", "missing.jpg"), "neither a file nor a picture in the store"),
        (("--like", "0.png", "--background", "voc20"), "--background is about words that are looked for"),
        (("--like", "0.png", "--score", "fine"), "--score is about words that are looked for"),
        (("dog", "--images", tmp_path), "add --sheet, or leave --images out"),
    ):
        outcome = tai("search", filled_store, *arguments)
        assert outcome.status == 2
        assert words in outcome.stderr


def test_a_heatmap_for_each_tag(tai, filled_store, picture_folder, tiny_model, tmp_path):
    out = tmp_path / "why.png"
    arguments = ("--tag", "dog", "--tag", "red balloon", "--out", out, "--json")
    whole = tai("explain", picture_folder / "0.png", "--model", tiny_model, *arguments)
    assert whole.status == 0
    with Image.open(out) as drawn:
        assert drawn.width > 3 * 320
    stored = tai("explain", "0.png", "--store", filled_store, *arguments)
    assert [row["tag"] for row in stored.json()] == ["dog", "red balloon"]
    for one, other in zip(whole.json(), stored.json(), strict=True):
        assert np.allclose(one["grid"], other["grid"], atol=0.02)
    with Image.open(out) as drawn:  # the grids alone
        assert 2 * 320 < drawn.width < 3 * 320
    best = tai("explain", "0.png", "--store", filled_store, "--images", picture_folder, "--out", out)
    assert best.status == 0
    assert str(out) in best.stdout


def test_what_cannot_be_explained_is_said(tai, filled_store, picture_folder, tmp_path):
    for arguments, words in (
        (("nobody.png",), "nobody.png"),
        (("../x.png", "--images", picture_folder), "x.png"),
    ):
        outcome = tai("explain", *arguments, "--store", filled_store, "--out", tmp_path / "x.png")
        assert outcome.status == 2
        assert words in outcome.stderr
    assert not (tmp_path / "x.png").exists()
