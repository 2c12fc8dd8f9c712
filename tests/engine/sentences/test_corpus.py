import json
import os
from pathlib import Path

import pytest

from tai_engine.errors import UserError
from tai_engine.sentences.corpus import (
    CorpusOptions,
    LabelledCorpus,
    LabelledSentence,
    image_key,
    published_templates,
    read_image_ids,
)
from tai_engine.sentences.read import SentenceOptions
from tai_engine.tables import TableOptions
from tai_engine.vocabulary import Vocabulary, VocabularyClass, load_vocabulary

PETS = Vocabulary(
    "pets", (VocabularyClass("dog", ("puppy",)), VocabularyClass("cat"), VocabularyClass("toy"), VocabularyClass("emu"))
)


def write(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps({"image_id": image, "caption": text}) + "\n" for image, text in rows))
    return path


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        [
            ("1", "A dog and a cat."),
            ("1", "Two dogs."),
            ("1", "Puppies"),
            ("2", "A house."),
            ("2", ""),
            ("2", "A cat"),
            ("3", "Another dog"),
        ],
    )


def test_labels_ids_and_report(captions: Path) -> None:
    corpus = LabelledCorpus(captions, PETS)
    expected = [
        LabelledSentence("1", "A dog and a cat.", (0, 1)),
        LabelledSentence("2", "Two dogs.", (0,)),
        LabelledSentence("3", "Puppies", (0,)),
        LabelledSentence("6", "A cat", (1,)),
        LabelledSentence("7", "Another dog", (0,)),
    ]
    assert list(corpus) == expected
    assert list(corpus) == expected  # again, with a fresh report
    assert corpus.report.as_dict() == {
        "read": 7,
        "without_text": 1,
        "excluded": 0,
        "without_class": 1,
        "over_image_limit": 0,
        "over_class_limit": 0,
        "kept": 5,
        "template_sentences": 0,
        "labels_per_sentence": 6 / 5,
        "classes": {"dog": 4, "cat": 2, "toy": 0, "emu": 0},
    }


def test_warnings_name_classes_and_give_advice(captions: Path) -> None:
    corpus = LabelledCorpus(captions, PETS, CorpusOptions(few=3, exclude_images=frozenset({"99"})))
    list(corpus)
    missing, few, excluded = corpus.report.warnings()
    assert missing.startswith("No sentence names 2 of 4 classes ('toy', 'emu'): add synonyms")
    assert few.startswith("Fewer than 3 sentences name 1 of 4 classes ('cat'): ")
    assert excluded.startswith("None of the 1 images to exclude is in the sentence file")


def test_long_lists_of_classes_are_shortened(captions: Path) -> None:
    many = Vocabulary.from_names(["dog", *(f"nothing{n}" for n in range(25))])
    corpus = LabelledCorpus(captions, many, CorpusOptions(few=1))
    list(corpus)
    (line,) = corpus.report.warnings()
    assert line.startswith("No sentence names 25 of 26 classes ('nothing0', ")
    assert "'nothing19' and 5 more)" in line
    assert len(corpus.report.classes_below(1)) == 25


def test_two_names_for_one_word_are_reported(captions: Path) -> None:
    both = Vocabulary.from_names(["dog", "dogs"])
    corpus = LabelledCorpus(captions, both, CorpusOptions(few=1))
    assert next(iter(corpus)).class_indices == (0, 1)
    assert "'dog' stands for 'dog' and 'dogs'" in corpus.report.warnings()[-1]


def test_excluded_images(captions: Path, tmp_path: Path) -> None:
    excluded = tmp_path / "test_images.txt"
    excluded.write_text("# images of the test set\nval2014/COCO_val2014_000000000001.jpg\n\n00002\n")
    corpus = LabelledCorpus(captions, PETS, CorpusOptions(exclude_images=read_image_ids(excluded)))
    assert [s.id for s in corpus] == ["7"]
    assert (corpus.report.excluded, corpus.report.kept, corpus.report.read) == (6, 1, 7)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("42", "42"),
        ("000000000042", "42"),
        ("000000000042.jpg", "42"),
        ("a\\COCO_train2014_000000000042.JPG", "42"),
        ("0", "0"),
        ("00f1c.png", "00f1c"),
        ("photo.v2", "photo.v2"),
        (" x ", "x"),
    ],
)
def test_image_keys(given: str, key: str) -> None:
    assert image_key(given) == key


def test_sentences_per_image_are_the_first_that_name_a_class(captions: Path) -> None:
    corpus = LabelledCorpus(captions, PETS, CorpusOptions(sentences_per_image=1))
    assert [s.id for s in corpus] == ["1", "6", "7"]
    assert corpus.report.over_image_limit == 2


def test_image_rules_need_image_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a dog\n")
    for options in (CorpusOptions(sentences_per_image=1), CorpusOptions(exclude_images=frozenset({"1"}))):
        with pytest.raises(UserError, match=r"Sentence 1 of .*a\.txt has no image id"):
            list(LabelledCorpus(path, PETS, options))


def test_limit_by_the_rarest_class(tmp_path: Path) -> None:
    # dog 5, cat 3, toy 1: "dog cat" counts as cat, "dog toy" as toy.
    rows = ["dog", "dog cat", "dog toy", "cat", "dog", "dog", "cat"]
    path = write(tmp_path, [(str(n), text) for n, text in enumerate(rows)])
    corpus = LabelledCorpus(path, PETS, CorpusOptions(limit_per_rarest_class=1))
    assert [s.text for s in corpus] == ["dog", "dog cat", "dog toy"]
    assert corpus.report.over_class_limit == 4
    assert corpus.report.class_counts == [3, 1, 1, 0]
    two = LabelledCorpus(path, PETS, CorpusOptions(limit_per_rarest_class=2))
    assert [s.id for s in two] == ["1", "2", "3", "4", "5"]


def test_equally_rare_classes_go_by_vocabulary_order(tmp_path: Path) -> None:
    path = write(tmp_path, [("1", "cat dog"), ("2", "dog"), ("3", "cat")])
    corpus = LabelledCorpus(path, PETS, CorpusOptions(limit_per_rarest_class=1))
    assert [s.text for s in corpus] == ["cat dog", "cat"]  # the first counts for the dog, which is earlier


def test_the_limit_counts_only_sentences_that_may_be_kept(tmp_path: Path) -> None:
    # With the excluded image the cat would be the more frequent one.
    path = write(tmp_path, [("1", "cat"), ("1", "cat"), ("2", "dog cat"), ("3", "dog"), ("4", "dog cat")])
    options = CorpusOptions(limit_per_rarest_class=1, exclude_images=frozenset({"1"}))
    assert [s.id for s in LabelledCorpus(path, PETS, options)] == ["3", "4"]


def test_template_sentences(captions: Path) -> None:
    options = CorpusOptions(templates=("a photo of a {}.", "a toy {}."))
    corpus = LabelledCorpus(captions, PETS, options)
    added = [s for s in corpus if s.id.startswith("template")]
    assert added[:3] == [
        LabelledSentence("template:0:0", "a photo of a dog.", (0,)),
        LabelledSentence("template:0:1", "a toy dog.", (0, 2)),  # true of both classes
        LabelledSentence("template:1:0", "a photo of a cat.", (1,)),
    ]
    assert len(added) == corpus.report.template_sentences == 8
    assert corpus.report.class_counts[:2] == [4, 2]  # they do not hide that a class has no sentence


def test_published_templates() -> None:
    templates = published_templates()
    assert len(templates) == 89
    assert templates.count("a photo of a {}.") == 10  # it is one of ImageNet's, too
    assert all(template.count("{}") == 1 for template in templates)


def test_words_past_the_reach_of_the_text_tower_give_no_label(tmp_path: Path) -> None:
    path = write(tmp_path, [("1", "A dog, " + "x " * 30 + "a cat"), ("2", "cat!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!! dog")])
    corpus = LabelledCorpus(path, PETS, CorpusOptions(max_words=34))
    assert [s.class_indices for s in corpus] == [(0,), (1,)]
    assert [s.class_indices for s in LabelledCorpus(path, PETS, CorpusOptions(max_words=35))] == [(0, 1), (0, 1)]
    assert next(iter(corpus)).text.endswith("a cat")  # the text itself stays whole


def test_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, [("1", "a hot dog"), ("2", "a dog")])
    assert [s.id for s in LabelledCorpus(path, PETS, CorpusOptions(other_names=("hot dog",)))] == ["2"]


def test_no_sentence_with_a_class(tmp_path: Path) -> None:
    path = write(tmp_path, [("1", "ein Hund"), ("2", "eine Katze")])
    corpus = LabelledCorpus(path, PETS, CorpusOptions(templates=("a {}.",)))
    with pytest.raises(UserError, match=r"None of the 2 sentences of .*captions\.jsonl .* 'pets'.*language 'en'"):
        list(corpus)
    assert corpus.report.template_sentences == 0


def test_several_files_and_reading_options(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("alt\na dog\n")
    (tmp_path / "b.dat").write_text("alt\na cat\n")
    corpus = LabelledCorpus(
        [tmp_path / "a.dat", tmp_path / "b.dat"], PETS, None, SentenceOptions("alt", table=TableOptions("csv"))
    )
    assert [(s.id, s.class_indices) for s in corpus] == [("1", (0,)), ("2", (1,))]


def test_bad_options_and_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sentences_per_image is 0"):
        CorpusOptions(sentences_per_image=0)
    with pytest.raises(UserError, match="limit_per_rarest_class is -1"):
        CorpusOptions(limit_per_rarest_class=-1)
    with pytest.raises(UserError, match="template 'a photo' needs the place"):
        CorpusOptions(templates=("a photo",))
    with pytest.raises(UserError, match="No sentence file"):
        LabelledCorpus([], PETS)
    ids = tmp_path / "ids.txt"
    with pytest.raises(UserError, match=r"ids\.txt' cannot be read \(No such file"):
        read_image_ids(ids)
    ids.write_text("# none\n")
    with pytest.raises(UserError, match=r"ids\.txt is empty"):
        read_image_ids(ids)
    ids.write_bytes(b"\xff1\n")
    with pytest.raises(UserError, match=r"ids\.txt' is not UTF-8"):
        read_image_ids(ids)


@pytest.mark.data
def test_real_captions() -> None:
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("needs the outside data folder named by TAI_DATA")
    corpus = LabelledCorpus(Path(folder) / "coco_val2017_captions.jsonl", load_vocabulary("coco80"))
    labelled = list(corpus)
    report = corpus.report
    assert report.read == 25_014
    assert len(labelled) == report.kept > 0.85 * report.read
    assert report.classes_below(1) == []
    limited = LabelledCorpus(
        Path(folder) / "coco_val2017_captions.jsonl",
        load_vocabulary("coco80"),
        CorpusOptions(sentences_per_image=1, limit_per_rarest_class=50),
    )
    assert 0 < len(list(limited)) <= 80 * 50
    assert limited.report.over_class_limit > 0
