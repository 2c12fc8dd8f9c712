"""Labelling sentences: ours from file to labels, and the published way of looking names up, side by side.

The published code keeps names in two sets, compounds and single words, and asks for each whether it is a part of the
sentence. ``plain_labels`` is that, in our fixed order; both must give the same labels before they are timed.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tai_benchmarks.machine import environment
from tai_benchmarks.protocol import QUICK_ROUNDS, ROUNDS, BenchRow, Candidate, Columns, measure, throughput_row
from tai_engine.errors import UserError, unknown_choice
from tai_engine.sentences.corpus import LabelledCorpus
from tai_engine.sentences.nouns import lemmatiser, words_of
from tai_engine.vocabulary import Vocabulary, VocabularyClass, load_vocabulary

BENCH = "corpus"
CASES = ("text", "jsonl", "coco-json")
CLASSES = (80, 4585)
TABLE: Columns = {}

_SENTENCES, _QUICK_SENTENCES = 20_000, 4_000
_PLAIN_LOOK_UPS = 200_000  # names asked for in one call of the plain way
_FILLERS = 3_000


@dataclass(frozen=True)
class CorpusBenchConfig:
    """What to measure.

    Attributes:
        cases: file formats out of ``CASES``.
        classes: C: 80 is COCO's vocabulary with its synonyms, others are generated.
        sentences: in the generated file.
        rounds: samples of each candidate.
        file: real sentences, one a line, in place of generated ones.

    Raises:
        UserError: for an unknown case or a number out of range.
    """

    cases: tuple[str, ...] = CASES
    classes: tuple[int, ...] = CLASSES
    sentences: int = _SENTENCES
    rounds: int = ROUNDS
    file: Path | None = None

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        if self.sentences < 1 or self.rounds < 1 or not all(count >= 1 for count in self.classes):
            raise UserError(
                f"sentences is {self.sentences}, rounds {self.rounds}, classes {self.classes}; give numbers from 1."
            )


def configure(*, quick: bool, **wanted: Any) -> CorpusBenchConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    defaults: dict[str, Any] = {"rounds": QUICK_ROUNDS, "sentences": _QUICK_SENTENCES} if quick else {}
    return CorpusBenchConfig(**(defaults | wanted))


def run(config: CorpusBenchConfig, remark: Callable[[str], object] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every case and yield its rows, in sentences per second.

    Args:
        config: what to measure.
        remark: told what is being measured.

    Raises:
        RuntimeError: when the two ways disagree about a sentence.
        UserError: when the file of sentences cannot be read.
    """
    facts = environment(torch.device("cpu"))
    for classes in config.classes:
        vocabulary = load_vocabulary("coco80") if classes == 80 else generated_vocabulary(classes)
        texts = _texts(config, vocabulary)
        plain = PlainFilter(vocabulary)
        few = texts[: max(1, _PLAIN_LOOK_UPS // len(plain.names))]
        with tempfile.TemporaryDirectory() as folder:
            for case in config.cases:
                remark(f"{case}, {classes} classes: {len(texts)} sentences")
                corpus = LabelledCorpus(write_sentences(Path(folder), case, texts), vocabulary)
                _check(corpus, plain, few)
                candidates = {
                    "tai": Candidate(partial(list, corpus), len(texts)),
                    "published": Candidate(partial(plain.label_all, few), len(few)),
                }
                timings = measure(candidates, torch.device("cpu"), rounds=config.rounds)
                published = ("published", timings["published"])
                extra = facts | {"sentences": len(texts), "words": sum(len(words_of(t)) for t in texts) / len(texts)}
                for name, timing in timings.items():
                    yield throughput_row(BENCH, case, classes, (name, timing), published, "sentences/s", extra)


class PlainFilter:
    """The published look-up: is a name, between blanks, a part of the lemmatised sentence? One name after another."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._lemma = lemmatiser("en")
        owners: dict[str, int] = {}
        for index, entry in enumerate(vocabulary.classes):
            for name in entry.words:
                owners.setdefault(" ".join(self._lemma(w) for w in words_of(name)), index)
        for name, index in list(owners.items()):
            if " " in name:
                owners.setdefault(self._lemma(name.replace(" ", "")), index)
        order = sorted(owners, key=lambda n: (-n.count(" "), -len(n.replace(" ", "")), n.split(" ")))
        self.names = [(f" {name} ", owners[name]) for name in order]

    def labels(self, text: str) -> tuple[int, ...]:
        """Indices of the classes, rising."""
        # A bar keeps what is left on both sides of a name apart; neighbours share a blank, so one replace may miss one.
        sentence = " " + " ".join(self._lemma(word) for word in words_of(text)) + " "
        found = set()
        for name, index in self.names:
            while name in sentence:
                found.add(index)
                sentence = sentence.replace(name, " | ")
        return tuple(sorted(found))

    def label_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The labels of each text."""
        return [self.labels(text) for text in texts]


def _check(corpus: LabelledCorpus, plain: PlainFilter, texts: Sequence[str]) -> None:
    for text in texts:
        ours, theirs = corpus.filter.classes_in(text), plain.labels(text)
        if ours != theirs:
            raise RuntimeError(f"the two ways give {ours} and {theirs} for {text!r}")


def _texts(config: CorpusBenchConfig, vocabulary: Vocabulary) -> list[str]:
    if config.file is None:
        return generated_sentences(vocabulary, config.sentences)
    try:
        lines = config.file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The sentence file {config.file} cannot be read ({error}).") from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise UserError(f"The sentence file {config.file} is empty; give a file with at least one sentence.")
    return texts


def generated_vocabulary(classes: int) -> Vocabulary:
    """Made-up names of one to three words, a third each."""
    names = [(f"thing{n}", f"kind{n % 97} thing{n}", f"old kind{n % 97} thing{n}")[n % 3] for n in range(classes)]
    return Vocabulary("generated", tuple(map(VocabularyClass, names)))


def generated_sentences(vocabulary: Vocabulary, count: int) -> list[str]:
    """Sentences of about 12 words, some of them names; the same at every call.

    Other words come as often as those of a language do: word number r in proportion to 1/r.
    """
    chance = random.Random(0)
    fillers = [f"{'bcdfghklmnprst'[n % 14]}{'aeiou'[n % 5]}w{n}" for n in range(_FILLERS)]
    weights = [1 / (rank + 1) for rank in range(_FILLERS)]
    names = [word for entry in vocabulary.classes for word in entry.words]
    texts = []
    for words in (chance.choices(fillers, weights, k=11) for _ in range(count)):
        for _ in range(chance.choice((0, 1, 1, 2))):
            words.insert(chance.randrange(len(words)), chance.choice(names) + chance.choice(("", "s")))
        texts.append(" ".join(words).capitalize() + ".")
    return texts


def write_sentences(folder: Path, case: str, texts: Sequence[str]) -> Path:
    """A file of the case's format."""
    if case == "text":
        path, content = folder / "sentences.txt", "".join(f"{text}\n" for text in texts)
    elif case == "jsonl":
        path = folder / "sentences.jsonl"
        content = "".join(json.dumps({"image_id": n // 5, "caption": text}) + "\n" for n, text in enumerate(texts))
    else:
        path = folder / "sentences.json"
        records = [{"image_id": n // 5, "id": n, "caption": text} for n, text in enumerate(texts)]
        content = json.dumps({"images": [], "annotations": records})
    path.write_text(content, encoding="utf-8")
    return path
