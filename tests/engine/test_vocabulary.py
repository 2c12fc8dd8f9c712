import hashlib
import os
from pathlib import Path

import pytest

from tai_engine.errors import UserError
from tai_engine.vocabulary import (
    BUILT_IN_VOCABULARIES,
    DEFAULT_TEMPLATE,
    Vocabulary,
    VocabularyClass,
    imagenet_templates,
    load_vocabulary,
)

VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow dining_table dog horse motorbike person potted_plant "
    "sheep sofa train tv_monitor"
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


BUILT_IN = {"coco80": ("COCO-80", 80), "nuswide81": ("NUS-WIDE-81", 81), "voc20": ("VOC-20", 20)}


def test_the_built_in_names():
    assert tuple(BUILT_IN) == BUILT_IN_VOCABULARIES


@pytest.mark.parametrize("spec", BUILT_IN)
def test_built_in_vocabularies(spec):
    vocabulary = load_vocabulary(spec)
    title, count = BUILT_IN[spec]
    assert (vocabulary.name, len(vocabulary)) == (title, count)
    # Construction refuses a word in two classes; here also the joined forms of compounds must not meet.
    owners = {}
    for entry in vocabulary.classes:
        for word in entry.words:
            assert owners.setdefault(word.replace(" ", ""), entry.name) == entry.name
            assert word == word.lower()


def test_voc_names_are_those_of_the_devkit_in_words():
    assert load_vocabulary("voc20").names == tuple(name.replace("_", " ") for name in VOC.split())


def test_coco_and_nuswide_orders():
    coco = load_vocabulary("coco80").names
    assert coco[:3] + coco[-3:] == ("person", "bicycle", "car", "teddy bear", "hair drier", "toothbrush")
    assert [coco.index(n) for n in ("stop sign", "hot dog", "tv")] == [11, 52, 62]
    nuswide = load_vocabulary("nuswide81").names
    assert nuswide == tuple(sorted(nuswide))
    assert {"cars", "whales", "nighttime", "swimmers", "railroad"} <= set(nuswide)


def test_compounds_guard_their_parts():
    words = {entry.name: entry.words for entry in load_vocabulary("coco80").classes}
    assert "train car" in words["train"]
    assert "toilet bowl" in words["toilet"]
    assert {"motorbike", "motor bike"} <= set(words["motorcycle"])
    assert "television" in words["tv"]
    assert {"man", "woman", "people", "child"} <= set(words["person"])


@pytest.mark.data
def test_coco_names_equal_the_published_list():
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("TAI_DATA is not set")
    import json

    assert list(load_vocabulary("coco80").names) == json.loads((Path(folder) / "coco80_names.json").read_text())


def test_toml_file(tmp_path):
    text = """
        name = "Pets"
        templates = ["a {} at home."]
        other_names = ["cat_walk"]
        [[class]]
        name = "guinea_pig"
        synonyms = ["cavy", "guinea  hen"]
        [[class]]
        name = "Cat"
    """
    assert load_vocabulary(write(tmp_path, "pets.toml", text)) == Vocabulary(
        "Pets",
        (VocabularyClass("guinea pig", ("cavy", "guinea hen")), VocabularyClass("Cat")),
        ("a {} at home.",),
        ("cat walk",),
    )


def test_other_names_are_part_of_what_labels_mean():
    plain = Vocabulary("v", (VocabularyClass("dog"),))
    assert plain.fingerprint == Vocabulary("w", (VocabularyClass("dog"),)).fingerprint
    others = [Vocabulary("v", (VocabularyClass("dog"),), other_names=names) for names in (("a", "b"), ("b", "a"))]
    assert others[0].fingerprint == others[1].fingerprint != plain.fingerprint


def test_text_file_with_comments_blank_lines_synonyms_and_colons(tmp_path):
    text = "\ufeff# pets\n\n  dog: puppy, guide_dog\r\ncat\n#bird\nrating:safe\ntime: \nCafe\u0301\n"
    vocabulary = load_vocabulary(str(write(tmp_path, "my pets.txt", text)))
    assert vocabulary.name == "my pets"
    assert vocabulary.names == ("dog", "cat", "rating:safe", "time", "Café")
    assert [entry.synonyms for entry in vocabulary.classes] == [("puppy", "guide dog"), (), (), (), ()]


def test_a_file_named_like_a_built_in_is_reached_by_a_path(tmp_path, monkeypatch):
    write(tmp_path, "coco80", "axolotl\n")
    monkeypatch.chdir(tmp_path)
    assert len(load_vocabulary("coco80")) == 80
    assert load_vocabulary("./coco80").names == ("axolotl",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.txt", "dog\ncat\nDog\n", r"'Dog' stands in the classes 'dog' \(number 1\) and 'Dog' \(number 3\)"),
        ("v.txt", "dog: puppy\ncat: puppy\n", r"'puppy' stands in the classes 'dog' .* and 'cat'"),
        ("v.txt", "dog\npuppy: dog\n", r"'dog' stands in the classes 'dog' .* and 'puppy'"),
        ("v.txt", "dog: dog\n", "'dog' stands in the class 'dog' twice"),
        ("v.txt", "dog: puppy, , hound\n", "class 'dog' .* empty synonym"),
        ("v.txt", ": puppy\n", "Class 1 .* empty name"),
        ("v.txt", "# nothing\n\n", "no classes"),
        ("v.txt", "", "no classes"),
        ("v.toml", 'name = "x"\n', "no classes"),
        ("v.toml", '[[class]]\nname = "_"\n', "Class 1 .* empty name"),
        ("v.toml", "[[class]]\nsynonyms = []\n", "Class 1 .* empty name"),
        ("v.toml", '[[class]]\nname = "x\n', "not valid TOML.*line 2"),
        ("v.toml", '[[class]]\nname = "x"\nsynonym = ["y"]\n', "'synonym'; did you mean 'synonyms'"),
        ("v.toml", '[[classes]]\nname = "x"\n', "'classes'; did you mean 'class'"),
        ("v.toml", "[[class]]\nname = 3\n", "name of class 1 .* is 3; it must be text"),
        ("v.toml", '[[class]]\nname = "x"\nsynonyms = "y"\n', "synonyms of class 1 .* must be a list"),
        ("v.toml", 'class = ["x"]\n', r"write \[\[class\]\]"),
        ("v.toml", 'other_names = ["X"]\n[[class]]\nname = "x"\n', "'X', which is a word of a class: remove it"),
        ("v.toml", 'other_names = ["_"]\n[[class]]\nname = "x"\n', "'', which is empty: remove it"),
        ("v.toml", 'other_names = "y"\n[[class]]\nname = "x"\n', "other names of the .* must be a list"),
        ("v.toml", 'templates = ["no place"]\n[[class]]\nname = "x"\n', "'no place' .* must have the place {}"),
    ],
)
def test_mistakes_name_the_file_and_the_word(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(path)
    assert str(path) in str(caught.value)


def test_text_that_is_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"dog\ncat\ncaf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8 in line 3"):
        load_vocabulary(path)


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"Unknown vocabulary 'coco'; did you mean 'coco80'.*, or give the path of a"):
        load_vocabulary("coco")
    with pytest.raises(UserError, match=r"There is no vocabulary file .*none\.txt.*coco80, nuswide81, voc20"):
        load_vocabulary(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot be read"):
        load_vocabulary(tmp_path)


def test_fingerprint_covers_names_in_order_and_synonyms_as_sets():
    base = Vocabulary("a", (VocabularyClass("dog", ("puppy", "hound")), VocabularyClass("cat")))
    expected = hashlib.sha256(b'[["dog", ["hound", "puppy"]], ["cat", []]]').hexdigest()[:16]
    assert base.fingerprint == expected
    same = Vocabulary("b", (VocabularyClass("dog", ("hound", "puppy")), VocabularyClass("cat")), ("a {}.",))
    assert same.fingerprint == expected
    assert Vocabulary("a", base.classes[::-1]).fingerprint != expected
    assert Vocabulary.from_names(["dog", "cat"]).fingerprint != expected


def test_templates():
    templates = imagenet_templates()
    assert len(templates) == len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)
    assert templates[0] == "a bad photo of a {}."
    assert DEFAULT_TEMPLATE in templates
