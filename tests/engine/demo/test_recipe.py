from tai_engine.demo.recipe import own_names, own_names_recipe, tuning_recipe
from tai_engine.sentences.nouns import NounFilter
from tai_engine.vocabulary import load_vocabulary


def test_own_names_keep_the_words_of_the_sentences() -> None:
    vocabulary = load_vocabulary("coco80")
    renamed = own_names(vocabulary)
    assert renamed.names[0] == "article 101"
    assert renamed.names[79] == "article 180"
    assert renamed.classes[0].synonyms == vocabulary.classes[0].words
    sentence = "A person rides a bicycle past two stop signs."
    found = [NounFilter(words).classes_in(sentence) for words in (vocabulary, renamed)]
    assert found[0] == found[1] == tuple(vocabulary.names.index(name) for name in ("person", "bicycle", "stop sign"))


def test_recipes_are_valid_and_differ_where_names_do() -> None:
    known, own = tuning_recipe(), own_names_recipe()
    assert (known.class_specific, own.class_specific) == (False, True)
    assert own.text_temperature == known.text_temperature == 50
