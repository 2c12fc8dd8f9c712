"""What can be tagged: class names, the words that sentences use for them, and templates around the names."""

from tai_engine.vocabulary.classes import Vocabulary, VocabularyClass
from tai_engine.vocabulary.load import BUILT_IN_VOCABULARIES, load_vocabulary
from tai_engine.vocabulary.spelling import comparable_name, prompt_words
from tai_engine.vocabulary.templates import DEFAULT_TEMPLATE, imagenet_templates

__all__ = [
    "BUILT_IN_VOCABULARIES",
    "DEFAULT_TEMPLATE",
    "Vocabulary",
    "VocabularyClass",
    "comparable_name",
    "imagenet_templates",
    "load_vocabulary",
    "prompt_words",
]
