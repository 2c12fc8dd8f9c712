import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.vocabulary import (
    BUILT_IN_VOCABULARIES,
    DEFAULT_TEMPLATE,
    Vocabulary,
    VocabularyClass,
    imagenet_templates,
    load,
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


BUILT_IN = {
    "coco80": ("COCO-80", 80),
    "everyday": ("everyday", 409),
    "lvis1203": ("LVIS-1203", 1203),
    "nuswide81": ("NUS-WIDE-81", 81),
    "voc20": ("VOC-20", 20),
}


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
        (VocabularyClass("guinea_pig", ("cavy", "guinea hen")), VocabularyClass("Cat")),
        ("a {} at home.",),
        ("cat walk",),
    )
    assert load_vocabulary(tmp_path / "pets.toml").prompt_names == ("guinea pig", "Cat")


def test_other_names_are_part_of_what_labels_mean():
    plain = Vocabulary("v", (VocabularyClass("dog"),))
    assert plain.fingerprint == Vocabulary("w", (VocabularyClass("dog"),)).fingerprint
    others = [Vocabulary("v", (VocabularyClass("dog"),), other_names=names) for names in (("a", "b"), ("b", "a"))]
    assert others[0].fingerprint == others[1].fingerprint != plain.fingerprint


def test_text_file_with_comments_blank_lines_synonyms_and_colons(tmp_path):
    text = "\ufeff# pets\n\n  dog: puppy, guide_dog\r\ncat\n#bird\nrating:safe\ntime: \nCafe\u0301\n"
    vocabulary = load_vocabulary(str(write(tmp_path, "my pets.txt", text)))
    assert vocabulary.name == "my pets"
    assert vocabulary.names == ("dog", "cat", "rating:safe", "time", "Cafe\u0301")
    assert vocabulary.prompt_names == ("dog", "cat", "rating:safe", "time", "Café")
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
        ("v.txt", "cat\n\x1b[31mdog\n", r"Class 2 .* has the word '\\x1b\[31mdog', in which a control character"),
        ("v.json", '["dog", "a\\u0007b"]', "Class 2 .* control character"),
        ("v.txt", "cat\n\u202edog\n", r"Class 2 .* has the word '\\u202edog', in which an invisible .*U\+202E"),
        ("v.txt", "cat: kit\u200bty\n", r"Class 1 .* invisible character stands \(U\+200B\)"),
        ("v.txt", "0 tench\n1 goldfish\n", "Every line of .* begins with a number .'0 tench'"),
        ("v.txt", "# words\n\n7: tench\n9: goldfish\n12: shark\n", "Every line of .* begins with a number"),
        ("v.csv", "1. tench\n2. goldfish\n", "Every line of .* begins with a number"),
        ("v.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", "begins with a number of WordNet"),
        ("v.txt", "- tench\n* goldfish\n", "begins with the mark of a list"),
        ("v.txt", "'tench',\n\"goldfish\",\n", "stands in quotation marks"),
        ("v.txt", "tench|doctor fish\ngoldfish | gold carp\n", r"holds a '\|'"),
        ("v.txt", "tench, goldfish\n", "The only line of .* has commas in it"),
        ("v.rtf", r"{\rtf1 tench}", "a rich text document"),
        ("v.tsv", "n01440764\ttench\nn01443537\tgoldfish\n", "if line 1 is a row already, write a line of names"),
        ("v.yaml", "names:\n  0: dog\n  1: cat\n", "is YAML by its name"),
        ("v.pbtxt", "item {\n  id: 1\n  name: 'dog'\n}\n", "is a label map of TensorFlow by its name"),
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
    built_in = "coco80, everyday, lvis1203, nuswide81, voc20"
    with pytest.raises(UserError, match=rf"There is no vocabulary file .*none\.txt.*{built_in}"):
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


def test_the_spelling_of_the_user_is_what_tags_are_called(tmp_path):
    written = "1girl\nhatsune_miku\nlong_hair\n>_<\n0_0\nsaber_(fate)\nrating:safe\no_o\n3_3\n^_^_smile\n狗_猫\n"
    vocabulary = load_vocabulary(write(tmp_path, "danbooru.txt", written))
    assert vocabulary.names == tuple(written.split())
    assert vocabulary.prompt_names == (
        "1girl", "hatsune miku", "long hair", ">_<", "0_0", "saber (fate)", "rating:safe", "o_o", "3_3", "^ ^ smile",
        "狗 猫",
    )  # fmt: skip


def test_underscores_do_not_change_what_stores_were_labelled_with():
    """The fingerprint of a vocabulary is that of the versions that made blanks of underscores everywhere."""
    spelt = Vocabulary("v", (VocabularyClass("hot_dog", ("red_hot",)), VocabularyClass("0_0")))
    blanks = Vocabulary("v", (VocabularyClass("hot dog", ("red hot",)), VocabularyClass("0 0")))
    content = b'[["hot dog", ["red hot"]], ["0 0", []]]'
    assert spelt.fingerprint == blanks.fingerprint == hashlib.sha256(content).hexdigest()[:16]


CLASHES = (
    "tench\ncrane\ngoldfish\ncrane\nsunglasses: shades\nsunglasses: shades, specs\nTurkey\nturkey\nhot_dog\nHot Dog\n"
)


def test_all_clashes_are_told_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        load_vocabulary(write(tmp_path, "imagenet.txt", CLASHES))
    message = str(caught.value)
    for pair in (
        "'crane' stands in the classes 'crane' (number 2) and 'crane' (number 4)",
        "'sunglasses' stands in the classes 'sunglasses' (number 5) and 'sunglasses' (number 6)",
        "'shades' stands in the classes 'sunglasses' (number 5) and 'sunglasses' (number 6)",
        "'turkey' stands in the classes 'Turkey' (number 7) and 'turkey' (number 8)",
        "'Hot Dog' stands in the classes 'hot_dog' (number 9) and 'Hot Dog' (number 10)",
    ):
        assert pair in message
    assert "--merge-duplicates" in message
    many = "\n".join(["dog"] * 1000)
    with pytest.raises(UserError, match=r"; and 979 more, in the vocabulary 'many'") as caught:
        load_vocabulary(write(tmp_path, "many.txt", many))
    assert len(str(caught.value)) < 3000


def test_clashes_can_be_merged(tmp_path, caplog):
    vocabulary = load_vocabulary(
        write(tmp_path, "v.txt", CLASHES + "bird: crane, jay\njay walk: jay\n"), merge_duplicates=True
    )
    assert vocabulary.names == ("tench", "crane", "goldfish", "sunglasses", "Turkey", "hot_dog", "bird", "jay walk")
    assert [entry.synonyms for entry in vocabulary.classes] == [
        (), (), (), ("shades", "specs"), (), (), ("jay",), (),
    ]  # fmt: skip
    assert "4 classes of the vocabulary file" in caplog.text
    toml = write(tmp_path, "v.toml", '[[class]]\nname = "a"\n[[class]]\nname = "A"\n')
    assert load_vocabulary(toml, merge_duplicates=True).names == ("a",)
    assert load_vocabulary("coco80", merge_duplicates=True) == load_vocabulary("coco80")


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("selected_tags.csv", "tag_id,name,category,count\n1,general,9,100\n2,1girl,0,90\n", ("general", "1girl")),
        ("tags.txt", "tag_id,name,category,count\n1,general,9,100\n2,1girl,0,90\n", ("general", "1girl")),
        ("v.csv", "dog\ncat\n", ("dog", "cat")),
        ("v.csv", "Label;synonyms\ndog;puppy, hound\ncat;\n", ("dog", "cat")),
        ("v.tsv", "id\tdisplay_name\n/m/1\tdog\n/m/2\tCat, big\n", ("dog", "Cat, big")),
        ("v.jsonl", '{"name": "dog", "synonyms": ["puppy"]}\n{"name": "cat"}\n', ("dog", "cat")),
        ("v.jsonl", '"dog"\n"cat"\n', ("dog", "cat")),
        ("names.json", '[\n "dog",\n "cat"\n]', ("dog", "cat")),
        ("names.txt", '["dog", "cat"]', ("dog", "cat")),
        ("names", '["dog",\n"cat"]', ("dog", "cat")),
        ("names", "[dog]\ncat", ("[dog]", "cat")),
        ("v.json", '[{"name": "dog", "synonyms": ["puppy"]}, "cat"]', ("dog", "cat")),
        ("v.json", '{"1": "cat", "10": "cow", "0": "dog"}', ("dog", "cat", "cow")),
        ("v.json", '{"cat": 1, "dog": 0}', ("dog", "cat")),
        (
            "instances.json",
            '{"images": [], "categories": [{"id": 1, "name": "dog"}, {"id": 9, "name": "cat"}]}',
            ("dog", "cat"),
        ),
        (
            "config.json",
            '{"architectures": ["X"], "id2label": {"0": "dog", "10": "cow", "2": "cat"}, "label2id": {"dog": 0}}',
            ("dog", "cat", "cow"),
        ),
        ("v.txt", '# kept as TOML is\n[[class]]\nname = "dog"\n', ("dog",)),
    ],
)
def test_the_forms_that_people_have(tmp_path, name, text, names):
    assert load_vocabulary(write(tmp_path, name, text)).names == names


@pytest.mark.parametrize(
    "lines",
    [
        ["1 girl", "2 boys", "solo"],
        ["3d", "2d"],
        ["2 cats", "1 dog"],
        ["0_0", "1_1"],
        ["101 dalmatians"],
        ["|_|", "o_|"],
        ["- _ -", "dog"],
        ["n01440764", "n01443537"],
        ["rock 'n' roll", "'tis"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus"],
        ["family \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
        ["\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
    ],
)
def test_names_of_odd_forms_stay_as_they_are(tmp_path, lines):
    assert load_vocabulary(write(tmp_path, "v.txt", "\n".join(lines))).names == tuple(lines)


def test_a_table_of_bytes_has_no_names(tmp_path):
    pq.write_table(pa.table({"name": [b"dog"]}), tmp_path / "v.parquet")
    with pytest.raises(UserError, match=r"no column of names: it has none \(and, of bytes .*: 'name'\)"):
        load_vocabulary(tmp_path / "v.parquet")


def test_a_model_whose_classes_have_no_names_is_no_vocabulary(tmp_path):
    path = write(tmp_path, "config.json", '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}')
    with pytest.raises(UserError) as refused:
        load_vocabulary(path)
    assert str(refused.value) == (
        f"The vocabulary file '{path}' calls its classes 'LABEL_0' and so on, which are no names: give a list of what "
        "they stand for."
    )
    with pytest.raises(UserError, match="holds no names"):
        load_vocabulary(write(tmp_path, "other.json", '{"id2label": {"a": "dog"}}'))


def test_synonyms_of_tables(tmp_path):
    words = load_vocabulary(write(tmp_path, "v.csv", "Label;synonyms\ndog;puppy, guide_dog\ncat;\n"))
    assert [entry.synonyms for entry in words.classes] == [("puppy", "guide dog"), ()]
    pq.write_table(pa.table({"tag": ["dog", "cat"], "aliases": [["puppy"], None]}), tmp_path / "v.parquet")
    assert [entry.synonyms for entry in load_vocabulary(tmp_path / "v.parquet").classes] == [("puppy",), ()]


def test_a_column_of_names_can_be_named(tmp_path):
    path = write(tmp_path, "v.csv", "name,german\ndog,Hund\ncat,Katze\n")
    assert load_vocabulary(path, column="german").names == ("Hund", "Katze")
    with pytest.raises(UserError, match=r"Unknown column .*v\.csv.*'germann'; did you mean 'german'"):
        load_vocabulary(path, column="germann")
    with pytest.raises(UserError, match=r"it has 'titel', 'n', expected one of name, tag, .*--vocabulary-column"):
        load_vocabulary(write(tmp_path, "w.csv", "titel,n\ndog,1\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.json", "[" * 100_000, "not valid JSON: it is nested deeper than 100 levels"),
        ("v.json", '["dog", 3]', "name of class 2 .* is 3; it must be text"),
        ("v.json", '["dog", ' + "1" * 6000 + "]", "name or synonym of 6,000 characters"),
        ("v.json", '{"dog": "puppy"}', "holds no names: expected a list of names"),
        ("v.json", '["\\ud800"]', "Class 1 .* not valid Unicode"),
        ("v.toml", "a = " + "1" * 6000, "not valid TOML"),
        ("v.toml", "a = " + "[" * 100_000, "not valid TOML: it is nested too deep"),
        ("v.txt", "cat\nn02084071\tdog\n", "Line 2 of the vocabulary file .* has a tab in it"),
        ("v.txt", "dog\n" + "x" * 1001, "Class 2 .* 1,001 characters .*at most 1,000"),
        ("v.txt", "dog\n\0\0", "Line 2 of the vocabulary file .* zero bytes"),
        ("v.xls", "\ud0cf"[:0] + "PK\x03\x04", "a zip archive or an Excel workbook"),
    ],
)
def test_bombs_and_strangers_are_one_sentence(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["v.txt", "v.toml", "v.json", "v"])
def test_a_file_of_zeros_is_refused_before_it_is_read(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # a hole: it takes no space
    with pytest.raises(
        UserError, match=r"v.* (has more than 16,777,216 bytes, the most that tai-engine reads|zero bytes)"
    ):
        load_vocabulary(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match="it is no regular file"):
        load_vocabulary(tmp_path / "pipe.txt")


def test_too_many_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "MAX_CLASSES", 3)
    assert len(load_vocabulary(write(tmp_path, "v.txt", "a\nb\nc\n"))) == 3
    with pytest.raises(UserError, match="more than 3 classes, the most that tai-engine takes"):
        load_vocabulary(write(tmp_path, "v.txt", "a\nb\nc\nd\n"))


def test_lines_that_end_as_on_old_macintoshes(tmp_path):
    assert load_vocabulary(write(tmp_path, "v.txt", "dog\rtraffic light\r\rcat")).names == (
        "dog",
        "traffic light",
        "cat",
    )
