import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.sentences import nouns
from tai_engine.sentences.nouns import NounFilter, lemmatiser, words_of
from tai_engine.vocabulary import Vocabulary, VocabularyClass, load_vocabulary


def vocabulary(**classes: tuple[str, ...]) -> Vocabulary:
    return Vocabulary("test", tuple(VocabularyClass(n.replace("_", " "), words) for n, words in classes.items()))


def names_in(noun_filter: NounFilter, text: str) -> list[str]:
    return [noun_filter.class_names[i] for i in noun_filter.classes_in(text)]


ZOO = vocabulary(
    dog=("puppy",),
    bear=(),
    teddy_bear=(),
    hot_dog=(),
    motorcycle=("motor bike",),
    bicycle=("bike",),
    person=("man", "woman", "child", "people"),
    wine_glass=("glass of wine",),
    train=(),
    skis=("ski",),
    tie=(),
)
FILTER = NounFilter(ZOO)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog.", ["dog"]),
        ("DOGS and puppies", ["dog"]),
        ("a teddy bear", ["teddy bear"]),
        ("Teddy-bears on a bed", ["teddy bear"]),
        ("a teddy bear and a bear", ["bear", "teddy bear"]),
        ("a bear next to a teddy bear", ["bear", "teddy bear"]),
        ("a dog eats a hot dog", ["dog", "hot dog"]),
        ("two hotdogs", ["hot dog"]),
        ("a motorbike, two motor bikes", ["motorcycle"]),
        ("a motor-bike beside a bike", ["motorcycle", "bicycle"]),
        ("the dog's bowl", ["dog"]),
        ("wine glasses", ["wine glass"]),
        ("two glasses of wine", ["wine glass"]),
        ("men, women and children", ["person"]),
        ("a policeman", []),  # whole words only
        ("hot dog_stand", ["hot dog"]),
        ("training near blue skies, tied up", []),  # verbs and look-alikes
        ("hot and a dog", ["dog"]),  # words of a compound must stand in a row
        ("a hotdog dog", ["dog", "hot dog"]),
        ("", []),
        ("!?", []),
        ("hot", []),
    ],
)
def test_classes_by_hand(text: str, expected: list[str]) -> None:
    assert names_in(FILTER, text) == expected


def test_matches_are_shown_as_written() -> None:
    found = FILTER.matches_in("Puppies near TEDDY bears, a bear")
    assert found == [("puppies", (0,)), ("teddy bears", (2,)), ("bear", (1,))]


def test_what_was_found_does_not_join_its_neighbours() -> None:
    # Without "hot dog" the words "teddy" and "bear" would meet.
    assert names_in(FILTER, "teddy hot dog bear") == ["bear", "hot dog"]


def test_overlapping_compounds_longest_first() -> None:
    classes = vocabulary(train_car=(), car_wash=(), old_car_wash_sign=())
    # Three words from the left are "train car", but the four-word name is looked up first.
    assert names_in(NounFilter(classes), "train old car wash sign") == ["old car wash sign"]
    # Equal word counts: "train car" has as many letters as "car washes" would not: 8 against 7.
    assert names_in(NounFilter(classes), "a train car wash") == ["train car"]


def test_the_order_of_the_vocabulary_does_not_matter() -> None:
    entries = [
        VocabularyClass(name, synonyms)
        for name, synonyms in [("a b", ("c",)), ("b c", ()), ("c d", ("a b c",)), ("d", ())]
    ]
    texts = [" ".join(words) for words in itertools.product("abcd", repeat=4)]
    expected = [names_in(NounFilter(Vocabulary("v", tuple(entries))), text) for text in texts]
    shuffled = entries.copy()
    random.Random(1).shuffle(shuffled)
    for order in (shuffled, entries[::-1]):
        noun_filter = NounFilter(Vocabulary("v", tuple(order)))
        assert [sorted(names_in(noun_filter, text)) for text in texts] == [sorted(names) for names in expected]


def look_up_in_turn(classes: list[tuple[str, ...]], words: list[str]) -> set[int]:
    """The rule written out: each name in turn, longest first, every occurrence from the left blanked."""
    order = sorted(range(len(classes)), key=lambda i: (-len(classes[i]), -len("".join(classes[i])), classes[i]))
    words, found = words.copy(), set()
    for index in order:
        name = list(classes[index])
        for at in range(len(words)):
            if words[at : at + len(name)] == name:
                words[at : at + len(name)] = ["-"] * len(name)
                found.add(index)
    return found


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(
        st.lists(st.sampled_from(["ab", "b", "cde", "f"]), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=6,
        unique_by=lambda n: "".join(n),  # joined forms would add names of their own
    ),
    words=st.lists(st.sampled_from(["ab", "b", "cde", "f", "x"]), max_size=8),
)
def test_equals_looking_up_each_name_in_turn(names: list[tuple[str, ...]], words: list[str]) -> None:
    noun_filter = NounFilter(Vocabulary.from_names([" ".join(n) for n in names]), "none")
    assert set(noun_filter.classes_in(" ".join(words))) == look_up_in_turn(names, words)


def test_built_in_vocabularies_know_what_is_no_class_of_theirs() -> None:
    voc, coco = (NounFilter(load_vocabulary(name)) for name in ("voc20", "coco80"))
    assert voc.classes_in("hot dogs beside a tv remote") == ()
    assert [coco.class_names[i] for i in coco.classes_in("a hot dog and orange juice at the bus stop")] == ["hot dog"]


def test_other_names_take_words_away_without_a_class() -> None:
    pets = NounFilter(vocabulary(dog=()), other_names=("hot dog", "dog"))
    assert names_in(pets, "hot dogs") == []
    assert names_in(pets, "a hotdog and a dog") == ["dog"]  # a class keeps its own name
    assert names_in(NounFilter(vocabulary(dog=())), "hot dogs") == ["dog"]


def test_plural_nouns_that_are_other_words() -> None:
    clothes = NounFilter(vocabulary(shorts=(), glasses=(), cup=("glass",), jeans=()))
    assert names_in(clothes, "a short man") == []
    assert names_in(clothes, "red shorts and jeans") == ["shorts", "jeans"]
    assert names_in(clothes, "a man with glasses") == ["glasses"]  # what the vocabulary itself says goes first
    assert names_in(clothes, "a glass") == ["cup"]
    assert names_in(NounFilter(vocabulary(cup=("glass",))), "two glasses") == ["cup"]


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("leaves", "leaf"),
        ("shelves", "shelf"),
        ("bookshelves", "bookshelf"),
        ("knives", "knife"),
        ("skies", "sky"),
        ("skis", "ski"),
        ("lenses", "lens"),
        ("lens", "lens"),
        ("women", "woman"),
        ("firemen", "fireman"),
        ("geese", "goose"),
        ("tvs", "tv"),
        ("ties", "tie"),
        ("puppies", "puppy"),
        ("sandwiches", "sandwich"),
        ("news", "news"),
        ("grass", "grass"),
        ("running", "running"),
        ("tied", "tied"),
    ],
)
def test_english_singulars(plural: str, singular: str) -> None:
    assert lemmatiser("en")(plural) == singular


def test_other_languages() -> None:
    german = NounFilter(vocabulary(hund=(), fahrrad=("Rad",), haus=()), "de")
    assert names_in(german, "Zwei Hunde und drei Fahrräder") == ["hund", "fahrrad"]
    assert names_in(german, "HÄUSER, ein Haus") == ["haus"]
    assert names_in(NounFilter(vocabulary(hund=()), "none"), "Hunde") == []


def test_unknown_language_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"Unknown language 'xx'; choose one of 'ar', .*'de'"):
        NounFilter(ZOO, "xx")


def test_words_of_other_scripts() -> None:
    assert words_of("Des cafés_à l’été") == ["des", "cafés", "à", "l", "été"]
    assert words_of("cafe\u0301s") == ["cafés"]  # composed: two spellings are one word
    assert words_of("दो कुत्ते") == ["दो", "कुत्ते"]  # vowel signs are marks, not letters
    assert words_of("T-shirt No.5") == ["t", "shirt", "no", "5"]


def test_names_that_become_one_are_reported_and_both_count() -> None:
    noun_filter = NounFilter(vocabulary(dog=(), hounds=("dogs",)))
    assert noun_filter.shared == {"dog": ("dog", "hounds")}
    assert names_in(noun_filter, "a dog") == ["dog", "hounds"]


def test_a_written_name_goes_before_a_joined_one() -> None:
    noun_filter = NounFilter(vocabulary(motor_bike=(), scooter=("motorbike",)))
    assert names_in(noun_filter, "a motorbike") == ["scooter"]
    assert names_in(noun_filter, "a motor bike") == ["motor bike"]
    assert noun_filter.shared == {}


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(UserError, match=r"1 of the words .* have no letter or digit: '!!'; "):
        NounFilter(vocabulary(dog=("!!",)))
    faces = Vocabulary("faces", tuple(map(VocabularyClass, (">_<", "dog", "^_^"))))
    with pytest.raises(
        UserError, match=r"2 of the words of the vocabulary 'faces' .* '>_<', '\^_\^'; give .* synonyms"
    ):
        NounFilter(faces)
    named = NounFilter(Vocabulary("faces", (VocabularyClass(">_<", ("squint",)), VocabularyClass("0_0"))))
    assert names_in(named, "A squint, 0 0 and > <") == [">_<", "0_0"]


def test_the_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_CACHED_WORDS", 10)
    noun_filter = NounFilter(ZOO)
    for number in range(50):
        assert names_in(noun_filter, f"dog word{number} teddy bears") == ["dog", "teddy bear"]
        assert len(noun_filter._numbers) <= 10


CHINESE = vocabulary(狗=(), 猫=(), 自行车=("单车",), 车=(), 热狗=(), 冰淇淋=())
JAPANESE = vocabulary(犬=("いぬ",), パン=(), パンダ=(), Tシャツ=(), テーブル=(), 消しゴム=())


@pytest.mark.parametrize("language", ["none", "zh", "en"])
def test_chinese_is_found_without_blanks_between_words(language: str) -> None:
    found = NounFilter(CHINESE, language)
    for text, names in {
        "一只狗在草地上奔跑。": ["狗"],
        "两只猫在沙发上睡觉，还有一只狗": ["狗", "猫"],
        "一个男人骑着自行车。": ["自行车"],  # the longer name first: no car
        "自行车和车": ["自行车", "车"],
        "一辆单车": ["自行车"],
        "吃热狗": ["热狗"],
        "吃冰淇淋a狗b3猫": ["狗", "猫", "冰淇淋"],
        "男人": [],
    }.items():
        assert names_in(found, text) == names, text
    assert found.matches_in("骑自行车的狗") == [("自 行 车", (2,)), ("狗", (0,))]


@pytest.mark.parametrize("language", ["none", "ja"])
def test_japanese_is_found_in_its_three_scripts(language: str) -> None:
    found = NounFilter(JAPANESE, language)
    for text, names in {
        "白い犬がテーブルの下にいる。": ["犬", "テーブル"],
        "いぬとパンダ": ["犬", "パンダ"],  # a panda is no bread: katakana stand together
        "パンを食べる": ["パン"],
        "赤いTシャツと消しゴム": ["Tシャツ", "消しゴム"],
    }.items():
        assert names_in(found, text) == names, text


def test_words_of_scripts_without_blanks() -> None:
    assert words_of("骑自行车 2.5 GB") == ["骑", "自", "行", "车", "2", "5", "gb"]
    assert words_of("3匹のネコ、ｃaféと日々") == ["3", "匹", "の", "ネコ", "ｃafé", "と", "日", "々"]
    assert words_of("か\u3099") == ["が"]  # composed


def test_scripts_without_blanks_that_cannot_be_told_apart_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"3 of the words of the vocabulary 'test' .* are in Thai and Khmer, which put"):
        NounFilter(vocabulary(แมว=(), dog=("หมา",), ឆ្កែ=(), cow=()), "none")
    with pytest.raises(UserError, match=r"'แมว'.*in Thai.*or have no letter|in Thai.*or have no letter.*'แมว'"):
        NounFilter(Vocabulary("v", (VocabularyClass("แมว"), VocabularyClass(">_<"))))
    # The name of a tag may be in any script, as long as its class has words that are found.
    mixed = NounFilter(Vocabulary("v", (VocabularyClass("แมว", ("cat",)), VocabularyClass("dog"))))
    assert names_in(mixed, "cats and dogs") == ["แมว", "dog"]
