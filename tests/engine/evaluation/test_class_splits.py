"""Groups of classes: the built-in ones as papers count them, and those of users."""

import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.class_splits import ALL_GROUPS, BUILT_IN_SPLITS, load_splits
from tai_engine.vocabulary import load_vocabulary

SIZES = {
    "voc-mlt": ("voc20", {"head": 6, "medium": 6, "tail": 8}),
    "coco-lt": ("coco80", {"head": 22, "medium": 33, "tail": 25}),
    "coco-48-17": ("coco80", {"seen": 48, "unseen": 17}),
    "coco-16-novel": ("coco80", {"base": 64, "novel": 16}),
}


@pytest.mark.parametrize("name", BUILT_IN_SPLITS)
def test_the_built_in_groups_have_their_published_sizes(name):
    vocabulary, sizes = SIZES[name]
    columns = load_splits(name).columns(load_vocabulary(vocabulary).names)
    assert {group: len(found) for group, found in columns.items() if group != ALL_GROUPS} == sizes
    assert len(columns[ALL_GROUPS]) == sum(sizes.values())  # no class is in two groups


def test_places_that_the_published_lists_have():
    voc, coco = (load_vocabulary(name).names for name in ("voc20", "coco80"))
    assert load_splits("voc-mlt").columns(voc)["head"] == [4, 6, 8, 10, 14, 15]
    assert load_splits("voc-mlt").columns(voc)["medium"] == [1, 7, 11, 13, 17, 19]
    head = load_splits("coco-lt").columns(coco)["head"]
    assert head == [0, 2, 24, 26, 39, 41, 42, 43, 44, 45, 56, 57, 58, 60, 62, 63, 67, 69, 71, 72, 73, 75]
    assert load_splits("coco-48-17").columns(coco)["unseen"][:3] == [4, 5, 15]


def test_ones_own_groups(tmp_path):
    toml, json = tmp_path / "s.toml", tmp_path / "s.json"
    toml.write_text('pets = ["Dog", "hot_dog"]\nothers = ["dog"]\n')
    json.write_text('{"pets": ["Dog", "hot_dog"], "others": ["dog"]}')
    for path in (toml, json):
        columns = load_splits(path).columns(("cat", "hot dog", "dog"))
        assert columns == {"pets": [1, 2], "others": [2], ALL_GROUPS: [1, 2]}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.toml", "pets = 3", "must hold from 1 to 12 groups"),
        ("s.toml", "", "must hold from 1 to 12 groups"),
        ("s.json", '["dog"]', "must hold from 1 to 12 groups"),
        ("s.json", '{"pets": []}', "must hold from 1 to 12 groups"),
        ("s.json", '{"all groups": ["dog"]}', "none may be called"),
        ("s.json", "{", "not valid JSON"),
        ("s.toml", "pets", "not valid TOML"),
        ("s.txt", "", "Unknown splits .* give a TOML or JSON file"),
        ("coco-lt ", "", "did you mean 'coco-lt'"),
    ],
)
def test_what_is_no_split(tmp_path, monkeypatch, name, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        load_splits(name)
    with pytest.raises(UserError, match=r"none\.toml"):
        load_splits("none.toml")
