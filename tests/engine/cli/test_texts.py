"""``tai cache texts``: from sentence files to labelled stores, on a tiny model with random weights."""

import gzip
import json

import pytest

from tai_engine.store import FeatureStore
from tai_engine.vocabulary import load_vocabulary

SENTENCES = ["a dog and a cat", "two dogs", "a red bus", "nothing of it", "", "a puppy on a double decker"]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_text("dog: puppy\ncat\nbus: double decker\nzebra\n")
    return path


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("\n".join(SENTENCES) + "\n")
    return path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "s.zarr"


@pytest.fixture
def cache(tai, tiny_model):
    """Runs ``tai cache texts`` with the tiny model."""
    return lambda *arguments: tai("cache", "texts", *arguments, "--model", tiny_model)


def refused(outcome, *parts):
    message = " ".join(outcome.stderr.split())
    assert outcome.status == 2, message
    assert outcome.stdout == ""
    for part in parts:
        assert str(part) in message, message


def contents(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_sentences_that_name_a_class_are_labelled(cache, sentences, words, store):
    outcome = cache(sentences, store, "--vocabulary", words, "--no-templates", "--json")
    assert outcome.status == 0
    filled = FeatureStore.open(store)
    # Ids are record numbers: the fourth has no class, the fifth is blank.
    assert [(i.id, i.text, i.labels) for i in filled.ledger()] == [
        ("1", "a dog and a cat", (0, 1)),
        ("2", "two dogs", (0,)),
        ("3", "a red bus", (2,)),
        ("6", "a puppy on a double decker", (0, 2)),
    ]
    assert filled.class_names == ("dog", "cat", "bus", "zebra")
    # Start and end of text among the tokens.
    assert filled.read_group(0).counts.tolist() == [7, 4, 5, 8]
    vocabulary = load_vocabulary(words)
    labels = filled.spec.labels
    assert (labels.vocabulary, labels.vocabulary_fingerprint) == ("pets", vocabulary.fingerprint)
    assert labels.corpus == {
        "language": "en",
        "other_names": [],
        "max_words": 75,
        "sentences_per_image": None,
        "limit_per_rarest_class": None,
        "templates": [],
        "excluded_images": 0,
        "excluded_images_sha256": None,
    }
    report = outcome.json()[0]
    assert (report["done"], report["failed"], report["vocabulary"]) == (4, 0, "pets")
    assert report["data_fingerprint"] == filled.data_fingerprint
    corpus = report["corpus"]
    assert (corpus["read"], corpus["kept"], corpus["without_class"], corpus["without_text"]) == (6, 4, 1, 1)
    assert corpus["classes"] == {"dog": 3, "cat": 1, "bus": 2, "zebra": 0}
    # A class without sentences, and those with few, are named.
    assert [line for line in report["warnings"] if "No sentence names 1 of 4 classes ('zebra')" in line]
    assert [line for line in report["warnings"] if "Fewer than 20" in line and "'dog', 'cat', 'bus'" in line]


def test_the_report_for_people(cache, sentences, words, store):
    outcome = cache(sentences, store, "--vocabulary", words)
    assert outcome.status == 0
    text = " ".join(outcome.stdout.split())
    assert "360 sentences encoded" in text  # 4 of the file, 89 templates for each of 4 classes
    assert "Of 6 sentences 4 were kept, with 1.50 classes each; left out: 1 without a class, 1 blank." in text
    assert "356 template sentences were added." in text
    assert "Sentences of the rarest classes: zebra 0, cat 1, bus 2, dog 3." in text
    assert "No sentence names 1 of 4 classes ('zebra'): add synonyms" in " ".join(outcome.stderr.split())
    ids = [item.id for item in FeatureStore.open(store).ledger()]
    assert (len(ids), len(set(ids)), ids[4], ids[-1]) == (360, 360, "template:0:0", "template:3:88")


def test_templates_of_the_vocabulary_itself(cache, sentences, store, tmp_path):
    words = tmp_path / "v.toml"
    words.write_text('templates = ["my pet {}"]\n[[class]]\nname = "dog"\n[[class]]\nname = "cat"\n')
    assert cache(sentences, store, "--vocabulary", words).status == 0
    items = list(FeatureStore.open(store).ledger())
    assert [(i.id, i.text, i.labels) for i in items[-2:]] == [
        ("template:0:0", "my pet dog", (0,)),
        ("template:1:0", "my pet cat", (1,)),
    ]


def test_without_a_vocabulary_all_sentences_are_kept(cache, sentences, store):
    outcome = cache(sentences, store, "--json")
    assert outcome.status == 0
    filled = FeatureStore.open(store)
    assert [(i.id, i.text) for i in filled.ledger()] == [(str(n), t) for n, t in enumerate(SENTENCES, 1) if t]
    assert filled.class_names == ()
    report = outcome.json()[0]
    assert (report["warnings"], report["data_fingerprint"]) == ([], filled.data_fingerprint)
    assert "corpus" not in report


def test_several_files_are_one_corpus(cache, sentences, words, store, tmp_path):
    more = tmp_path / "more.jsonl.gz"
    more.write_bytes(gzip.compress(b'{"caption": "a zebra"}\n{"caption": "rain"}\n{"caption": "cats"}\n'))
    assert cache(sentences, more, store, "--vocabulary", words, "--no-templates").status == 0
    assert [i.id for i in FeatureStore.open(store).ledger()] == ["1", "2", "3", "6", "7", "9"]


def test_options_decide_what_is_kept(cache, words, store, tmp_path):
    captions = tmp_path / "c.csv"
    captions.write_text(
        "file,alt\n"
        "000000000042.jpg,a cat\n"
        "000000000042.jpg,a dog\n"
        "7.jpg,a dog\n"
        "8.jpg,a dog and a bus\n"
        "8.jpg,a dog with a cat\n"
        "9.jpg,a bus\n"
    )
    held_out = tmp_path / "held.txt"
    held_out.write_text("9\n")
    options = (
        "--vocabulary", words, "--no-templates", "--column", "alt", "--image-column", "file",
        "--exclude-images", held_out, "--sentences-per-image", 1, "--limit-per-rarest-class", 1,
    )  # fmt: skip
    report = cache(captions, store, *options, "--json").json()[0]["corpus"]
    counts = {name: report[name] for name in ("read", "excluded", "over_image_limit", "over_class_limit", "kept")}
    assert counts == {"read": 6, "excluded": 1, "over_image_limit": 2, "over_class_limit": 0, "kept": 3}
    assert [i.id for i in FeatureStore.open(store).ledger()] == ["1", "3", "4"]
    settings = FeatureStore.open(store).spec.labels.corpus
    assert (settings["sentences_per_image"], settings["limit_per_rarest_class"]) == (1, 1)
    assert settings["excluded_images"] == 1
    # Another list of as many images is another setting.
    held_out.write_text("8\n")
    refused(cache(captions, store, *options), "corpus settings have changed", "excluded_images_sha256")


def test_other_languages(cache, store, tmp_path):
    (tmp_path / "w.txt").write_text("Hund\nKatze\n")
    (tmp_path / "s.txt").write_text("zwei Hunde\nviele Katzen\n", encoding="utf-8")
    options = ("--vocabulary", tmp_path / "w.txt", "--no-templates", "--language")
    assert cache(tmp_path / "s.txt", store, *options, "de").status == 0
    assert next(FeatureStore.open(store).iter_coarse()).labels.tolist() == [[True, False], [False, True]]
    refused(cache(tmp_path / "s.txt", store, *options, "none"), "language 'de' then, 'none' now")
    refused(cache(tmp_path / "s.txt", store, *options, "klingon"), "'klingon'")


def test_the_same_command_again_skips_what_is_there(cache, sentences, words, store):
    options = (sentences, store, "--vocabulary", words, "--no-templates", "--json")
    cache(*options)
    before = FeatureStore.open(store).data_fingerprint
    again = cache(*options).json()[0]
    assert (again["done"], again["skipped"], again["data_fingerprint"]) == (0, 4, before)
    assert again["corpus"]["kept"] == 4
    # New sentences at the end of the file are added.
    sentences.write_text(sentences.read_text() + "a cat\n")
    more = cache(*options).json()[0]
    assert (more["done"], more["skipped"], len(FeatureStore.open(store))) == (1, 4, 5)


def test_a_run_that_was_stopped_goes_on(cache, sentences, words, store, monkeypatch):
    from tai_engine.encoders import Encoder

    encode, calls = Encoder.encode_sentences, []

    def stopping(self, texts, ids):
        calls.append(len(ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, texts, ids)

    lines = [f"a dog and {n} cats" for n in range(1100)]
    sentences.write_text("\n".join(lines))
    options = (sentences, store, "--vocabulary", words, "--no-templates", "--json")
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "encode_sentences", stopping)
        stopped = cache(*options)
    assert stopped.status == 130
    assert calls == [1024, 76]
    assert len(FeatureStore.open(store)) == 1024
    report = cache(*options).json()[0]
    assert (report["skipped"], report["done"]) == (1024, 76)
    assert [i.text for i in FeatureStore.open(store).ledger()] == lines


def test_a_store_that_holds_more_says_so(cache, sentences, words, store):
    cache(sentences, store, "--vocabulary", words, "--no-templates")
    sentences.write_text("\n".join(SENTENCES[:2]))
    outcome = cache(sentences, store, "--vocabulary", words, "--no-templates", "--json")
    assert outcome.status == 0
    assert any("holds 2 sentences that these files and options do not give" in w for w in outcome.json()[0]["warnings"])


def test_empty_missing_and_wrongly_encoded_files(cache, sentences, words, store, tmp_path):
    bad = tmp_path / "bad.txt"
    for options in ((), ("--vocabulary", words)):
        bad.write_bytes(b"")
        refused(cache(bad, store, *options), bad, "is empty")
        # The second file is looked at before the first one is encoded.
        refused(cache(sentences, bad, store, *options), bad, "is empty")
        bad.write_bytes("ein Bär\n".encode("latin-1"))
        refused(cache(bad, store, *options), bad, "is not UTF-8", "name its encoding")
        refused(cache(tmp_path / "none.txt", store, *options), "none.txt' cannot be read (No such file")
        bad.write_bytes(b"\n\n")
        assert cache(bad, store, *options).status == 2
    assert not store.exists()
    bad.write_bytes("ein Bär\n".encode("latin-1"))
    assert cache(bad, store, "--encoding", "latin-1").status == 0
    assert FeatureStore.open(store).read_texts([0]) == ["ein Bär"]


def test_no_sentence_with_any_class(cache, words, store, tmp_path):
    (tmp_path / "s.txt").write_text("rain\nsnow\n")
    refused(
        cache(tmp_path / "s.txt", store, "--vocabulary", words),
        "None of the 2 sentences",
        "names a class of the vocabulary 'pets'",
        "synonyms",
    )
    assert not store.exists()


def test_a_vocabulary_that_changed(cache, sentences, words, store):
    cache(sentences, store, "--vocabulary", words, "--no-templates")
    before, old = contents(store), load_vocabulary(words).fingerprint
    words.write_text(words.read_text().replace("dog: puppy", "dog: puppy, hound"))
    new = load_vocabulary(words).fingerprint
    refused(
        cache(sentences, store, "--vocabulary", words, "--no-templates"),
        "The vocabulary 'pets' has changed since the store",
        f"{old} then, {new} now",
    )
    refused(cache(sentences, store, "--vocabulary", "coco80"), "'pets'", "'COCO-80'", old)
    refused(cache(sentences, store), "has labels of the vocabulary 'pets'", "--vocabulary")
    assert contents(store) == before


def test_templates_are_a_setting(cache, sentences, words, store):
    cache(sentences, store, "--vocabulary", words, "--no-templates")
    refused(cache(sentences, store, "--vocabulary", words), "corpus settings have changed", "templates [] then")


def test_other_sentences_under_the_same_numbers(cache, sentences, words, store):
    cache(sentences, store, "--vocabulary", words, "--no-templates")
    before = contents(store)
    sentences.write_text("a cat\na dog\n")
    refused(
        cache(sentences, store, "--vocabulary", words, "--no-templates"), "made from other sentences", "'1' is 'a cat'"
    )
    assert contents(store) == before


def test_a_store_of_another_space_or_kind(cache, tai, other_model, sentences, words, store, filled_store):
    cache(sentences, store, "--vocabulary", words, "--no-templates")
    before = contents(store)
    outcome = tai(
        "cache", "texts", sentences, store, "--vocabulary", words, "--no-templates", "--model", other_model
    )  # fmt: skip
    refused(outcome, "embedding space", FeatureStore.open(store).spec.space_key)
    assert contents(store) == before
    refused(cache(sentences, filled_store), "holds images, not sentences")


def test_options_that_need_a_vocabulary(cache, sentences, store, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n")
    for option, value in (
        ("--language", "en"),
        ("--limit-per-rarest-class", 5),
        ("--exclude-images", tmp_path / "ids.txt"),
        ("--sentences-per-image", 1),
    ):
        refused(cache(sentences, store, option, value), option, "--vocabulary")
    assert not store.exists()


def test_mistakes_in_options(cache, sentences, words, store, tmp_path):
    refused(cache(sentences, store, "--vocabulary", "coco81"), "'coco81'", "'coco80'")
    refused(cache(sentences, store, "--vocabulary", words, "--exclude-images", tmp_path / "no.txt"), "no.txt")
    refused(cache(sentences, store, "--vocabulary", words, "--sentences-per-image", "1"), "no image id")
    refused(cache(sentences, store, "--encoding", "utf-88"), "'utf-88'")
    captions = tmp_path / "c.jsonl"
    captions.write_text(json.dumps({"alt": "a dog"}) + "\n")
    refused(cache(captions, store, "--column", "alte"), "'alte'", "'alt'")
    assert cache(sentences).status == 2  # no store
    refused(cache(sentences, captions), "c.jsonl is not a feature store")
    assert not store.exists()
