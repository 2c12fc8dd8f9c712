"""Templated sentences that say what is in a scene, with the words people use for its classes.

Written to ``sentences.txt`` by ``python -m tai_engine.demo.sentences``; the same file comes out on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from tai_engine.files import write_atomically
from tai_engine.json_documents import parse_json

DRAWN_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "stop sign",
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "sports ball", "kite", "skateboard", "bottle", "wine glass", "cup",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza",
    "donut", "cake", "chair", "couch", "potted plant", "bed", "toilet", "tv", "laptop", "mouse", "keyboard",
    "cell phone", "book", "clock", "vase", "scissors", "teddy bear", "toothbrush",
)  # fmt: skip
"""The classes of COCO-80 that the sprites draw, in COCO's order."""

_NO_ARTICLE = frozenset({"people", "skis", "scissors", "shears", "cattle", "luggage", "baggage", "broccoli", "someone",
                         "somebody", "youth", "dude", "fellow"})  # fmt: skip
_PAIRED = {"skis": "a pair of skis", "scissors": "a pair of scissors", "shears": "a pair of shears"}
_NEVER_PLURAL = _NO_ARTICLE | {"sheep", "aircraft", "team", "crowd"}
_IRREGULAR = {"man": "men", "woman": "women", "child": "children", "person": "people", "knife": "knives",
              "wolf": "wolves", "goose": "geese", "mouse": "mice", "calf": "calves", "ox": "oxen", "wife": "wives",
              "policeman": "policemen", "fireman": "firemen", "gentleman": "gentlemen", "bookshelf": "bookshelves",
              "foot": "feet"}  # fmt: skip
_COUNTS = ("two", "three", "some", "several", "a few", "many")
_ADJECTIVES = ("small", "big", "large", "little", "old", "new", "pretty", "bright", "dark", "colorful", "red", "blue",
               "green", "yellow", "brown", "white", "pink", "purple", "gray", "shiny", "nice", "tiny",
               "lovely", "strange", "single", "cartoon", "striped")  # fmt: skip
_PLACES = ("on a plain background", "in the snow", "on the beach", "under a gray sky", "in a garden", "by the river",
           "in an empty room", "on the floor", "against a striped wall", "in bright light", "at night",
           "on a sunny day", "in the fog", "in summer", "in the middle of the picture", "on a colorful pattern",
           "in the grass", "near the water", "in the street", "at home", "in the city", "in the countryside",
           "on a noisy background", "in front of a blue wall", "in the corner", "outdoors", "indoors",
           "in the sunshine", "on the road", "in the park", "next to a building", "under the trees")  # fmt: skip
_OPENINGS = ("", "", "", "a photo of ", "a picture of ", "an image of ", "there is ", "this is ", "here is ", "we see ",
             "a drawing of ", "a close-up of ", "a view of ", "i can see ", "look at ", "it shows ", "a rendering of ",
             "a cropped photo of ", "a blurry photo of ", "you see ")  # fmt: skip
_JOINTS = (" and ", " and ", " with ", " next to ", " beside ", " near ", " behind ", " in front of ", " on top of ",
           " under ", " above ", " to the left of ", " together with ", " close to ", " looking at ")  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a sentence; ``class_name`` says which class its words name, None for all other words."""

    text: str
    class_name: str | None = None


def plural(noun: str) -> str:
    """The plural of an English noun or compound ("wine glass" -> "wine glasses")."""
    first, _, last = noun.rpartition(" ")
    for link in (" of ",):
        if link in noun:
            head, tail = noun.split(link, 1)
            return f"{plural(head)}{link}{tail}"
    if last in _NEVER_PLURAL:
        return noun
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{first} {last}".strip()


class SentenceWriter:
    """Writes sentences about given classes with names and synonyms of the COCO-80 vocabulary.

    A class's own name is taken half of the time, else one of its synonyms. The words are those of ``words.json``, which
    the embedded model has learned: the vocabulary goes on growing, and the sentences stay what they are.
    """

    def __init__(self) -> None:
        text = files("tai_engine.demo").joinpath("words.json").read_text(encoding="utf-8")
        self.words: dict[str, tuple[str, ...]] = {name: tuple(words) for name, words in parse_json(text).items()}

    def noun(self, rng: np.random.Generator, class_name: str) -> str:
        """A word or compound for the class."""
        words = self.words[class_name]
        return words[0] if len(words) == 1 or rng.random() < 0.5 else words[1 + int(rng.integers(len(words) - 1))]

    def pieces(self, rng: np.random.Generator, class_names: Sequence[str]) -> list[Piece]:
        """One sentence that names the classes in random order, part by part; joined, the texts are it."""
        order = [class_names[i] for i in rng.permutation(len(class_names))]
        written = [Piece(_choice(rng, _OPENINGS))]
        for number, class_name in enumerate(order):
            if number:
                last = number == len(order) - 1
                written.append(Piece(_choice(rng, _JOINTS) if last or rng.random() < 0.3 else ", "))
            written += self._phrase(rng, class_name)
        if rng.random() < 0.4:
            written.append(Piece(" " + _choice(rng, _PLACES)))
        if rng.random() < 0.7:
            written.append(Piece("."))
        return written

    def sentence(self, rng: np.random.Generator, class_names: Sequence[str]) -> str:
        """One sentence that names the classes, its first letter a capital."""
        text = "".join(piece.text for piece in self.pieces(rng, class_names))
        return text[0].upper() + text[1:]

    def _phrase(self, rng: np.random.Generator, class_name: str) -> list[Piece]:
        noun = self.noun(rng, class_name)
        adjective = f"{_choice(rng, _ADJECTIVES)} " if rng.random() < 0.35 else ""
        chance = rng.random()
        head = noun.rpartition(" ")[2]
        if chance < 0.2 and head not in _NEVER_PLURAL:
            return [Piece(f"{_choice(rng, _COUNTS)} {adjective}"), Piece(plural(noun), class_name)]
        if noun in _PAIRED and chance < 0.6:
            return [Piece(_PAIRED[noun], class_name)]
        if chance < 0.4 or head in _NO_ARTICLE:
            return [Piece(f"the {adjective}" if chance < 0.3 else adjective), Piece(noun, class_name)]
        article = "an " if (adjective or noun)[0] in "aeiou" else "a "
        return [Piece(article + adjective), Piece(noun, class_name)]


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def generate_sentences(count: int = 5000, seed: int = 0) -> list[str]:
    """``count`` different sentences about 1 to 4 drawn classes each, every class equally often."""
    rng = np.random.default_rng(seed)
    writer = SentenceWriter()
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        size = int(rng.integers(1, 5))
        chosen = [DRAWN_CLASSES[i] for i in rng.choice(len(DRAWN_CLASSES), size=size, replace=False)]
        sentences.setdefault(writer.sentence(rng, chosen))
    return list(sentences)


def embedded_sentences() -> list[str]:
    """The sentences that ship with the package."""
    return files("tai_engine.demo").joinpath("sentences.txt").read_text(encoding="utf-8").splitlines()


def main(arguments: list[str] | None = None) -> None:
    """Write the sentences, one a line."""
    parser = argparse.ArgumentParser(prog="python -m tai_engine.demo.sentences", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="text file to write")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    write_atomically(options.out, "\n".join(generate_sentences(options.count, options.seed)) + "\n")


if __name__ == "__main__":
    main()
