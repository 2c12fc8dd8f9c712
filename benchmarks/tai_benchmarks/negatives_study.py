"""What hard negatives are: of the built-in captions, whose photographs are labelled.

    python -m tai_benchmarks.negatives_study --labels FILE [--read 36]

A sentence is a negative of a class that it does not name; it is a false one if its photograph shows the class all the
same. FILE has a line for each photograph: COCO's number, then the numbers of the classes among COCO's 80 that it
shows. For every guard (`NegativeConfig`) the table has the mean cosine of what is mined to its class and the share
that is false; once with every sentence that does not name the class, and once with those alone of whose photograph no
caption names it. A second table has of how many pairs of a sentence and an absent class the ranking loss learns at
first: those where a class that the sentence names does not beat the absent one by the margin. Last come so many false
ones as are asked for, drawn at random, to be read.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tai_benchmarks.photo_tuning import MODEL, labelled_captions
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.sentences.built_in import built_in_captions
from tai_engine.sentences.corpus import image_key
from tai_engine.sentences.read import read_sentences
from tai_engine.store import FeatureStore
from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import MinedNegatives, make_strategy
from tai_engine.tuning.sentence_table import SentenceTable, StoredVectors, split_sentences
from tai_engine.vocabulary import load_vocabulary

GUARDS = ((0.0, 0), (0.1, 5), (0.3, 5), (0.5, 5), (0.3, 50), (0.7, 5))
"""Margins and numbers of the most similar sentences that are skipped; the second pair is the default."""
SCALE = 4.0
"""Of cosines in the ranking loss."""
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, eq=False)
class LabelledPhotographs:
    """Which of COCO's classes photographs show, by their key."""

    classes: dict[str, frozenset[int]]

    @classmethod
    def read(cls, path: Path) -> LabelledPhotographs:
        """Lines of COCO's number and the numbers of classes.

        Raises:
            UserError: for a file that is not there or has no such line.
        """
        try:
            rows = [_NUMBERS.findall(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise UserError(f"The labels '{path}' cannot be read: {error.strerror}.") from error
        found = {image_key(row[0]): frozenset(map(int, row[1:])) for row in rows if row}
        if not found:
            raise UserError(f"The labels '{path}' have no line; expected COCO's number and the numbers of classes.")
        return cls(found)


def photograph_keys(store: FeatureStore, table: SentenceTable) -> list[str | None]:
    """Of each sentence of a table its photograph's key; None for templates.

    A caption's id in the store is its number in the file of captions.
    """
    by_id = {one.id: image_key(str(one.image_id)) for one in read_sentences(built_in_captions())}
    ids: list[str] = []
    for positions in table.positions.split(4096):
        ids += store.read_items(positions, with_fine=False).ids
    return [by_id.get(name) for name in ids]


def photograph_holders(table: SentenceTable, keys: Sequence[str | None]) -> Holders:
    """Who holds what, if a sentence holds what any caption of its photograph names. Memory: [M, C] bool, twice."""
    labels_MC = torch.cat([table.labels(numbers) for numbers in torch.arange(len(table)).split(4096)])
    of_photograph: dict[str, Tensor] = {}
    for key, row in zip(keys, labels_MC, strict=True):
        if key is not None:
            of_photograph[key] = of_photograph[key] | row if key in of_photograph else row
    rows = [row if key is None else of_photograph[key] for key, row in zip(keys, labels_MC, strict=True)]
    return Holders.from_dense(torch.stack(rows))


class MinedPair(NamedTuple):
    """A sentence that was mined for a class; ``is_false`` is None where nobody has labelled its photograph."""

    class_index: int
    sentence: int
    cosine: float
    is_false: bool | None


def mined_pairs(mined: MinedNegatives, keys: Sequence[str | None], truth: LabelledPhotographs) -> Iterator[MinedPair]:
    """All but those drawn at random."""
    for c in range(len(mined.offsets) - 1):
        sentences, similarities = mined.of(c)
        hard = len(sentences) - int(mined.n_random[c])
        for sentence, cosine in zip(sentences[:hard].tolist(), similarities[:hard].tolist(), strict=True):
            shown = truth.classes.get(keys[sentence] or "")
            yield MinedPair(c, sentence, cosine, None if shown is None else c in shown)


def false_share(
    mined: MinedNegatives, keys: Sequence[str | None], truth: LabelledPhotographs
) -> tuple[float, float, int]:
    """Mean cosine, the share of false negatives, and of how many that is known; random ones among them left out."""
    pairs = list(mined_pairs(mined, keys, truth))
    known = [pair.is_false for pair in pairs if pair.is_false is not None]
    cosine = float(np.mean([pair.cosine for pair in pairs])) if pairs else float("nan")
    return cosine, sum(known) / max(len(known), 1), len(known)


def false_sentences(
    store: FeatureStore, queries_CD: Tensor, truth: LabelledPhotographs, count: int, seed: int = 5
) -> Iterator[str]:
    """So many false ones of the default guards, drawn at random, to be read: class, sentence and cosine."""
    table = split_sentences(store, 0.0).training
    config = NegativeConfig(random_share=0.0)
    mined = make_strategy(config, StoredVectors(table), table.holders()).mine(queries_CD, 0)
    false = [pair for pair in mined_pairs(mined, photograph_keys(store, table), truth) if pair.is_false]
    drawn = sorted(random.Random(seed).sample(false, min(count, len(false))))
    texts = store.read_texts(table.positions[torch.tensor([pair.sentence for pair in drawn], dtype=torch.int64)])
    for pair, text in zip(drawn, texts, strict=True):
        yield f"{store.class_names[pair.class_index]} | {text.strip()} | {pair.cosine:.2f}"


def mined_table(store: FeatureStore, queries_CD: Tensor, truth: LabelledPhotographs) -> Iterator[str]:
    """Lines of Markdown: what each guard lets through."""
    table = split_sentences(store, 0.0).training
    keys, vectors = photograph_keys(store, table), StoredVectors(table)
    yield "| negatives | the class is named by no | margin | skipped | mean cosine | false | known pairs |"
    yield "|---|---|---|---|---|---|---|"
    holders = {"sentence": table.holders(), "caption of the photograph": photograph_holders(table, keys)}
    at_random = make_strategy(NegativeConfig(strategy="random"), vectors, holders["sentence"]).mine(queries_CD, 0)
    every = replace_random(at_random)
    yield _mined_line("random", "sentence", "", "", *false_share(every, keys, truth))
    for who, held in holders.items():
        for margin, skip in GUARDS:
            config = NegativeConfig(margin=margin, skip_top=skip, random_share=0.0)
            mined = make_strategy(config, vectors, held).mine(queries_CD, 0)
            yield _mined_line("hard", who, f"{margin:g}", str(skip), *false_share(mined, keys, truth))


def costing(scores_MC: Tensor, labels_MC: Tensor) -> Tensor:
    """[M, C] bool: the absent classes that a present one does not beat by the ranking loss's margin, 1."""
    lowest_M1 = scores_MC.masked_fill(~labels_MC, torch.inf).amin(dim=1, keepdim=True)
    return (scores_MC > lowest_M1 - 1) & ~labels_MC


def pairs_table(store: FeatureStore, queries_CD: Tensor) -> Iterator[str]:
    """Lines of Markdown: of how many pairs of a sentence and an absent class training learns, and of mined ones."""
    table = split_sentences(store, 0.0).training
    vectors, labels_MC = StoredVectors(table), table.labels(torch.arange(len(table)))
    costs_MC = costing(SCALE * torch.as_tensor(vectors[slice(0, len(table))]).float() @ queries_CD.T, labels_MC)
    yield "| sentences | absent classes that cost, of each | mined pairs that cost |"
    yield "|---|---|---|"
    yield f"| all {len(table):,} | {float(costs_MC.sum(dim=1).float().mean()):.1f} | |"
    for strategy in ("random", "hard"):
        config = NegativeConfig(strategy=strategy, random_share=0.0)
        mined = make_strategy(config, vectors, table.holders()).mine(queries_CD, 0)
        classes = torch.repeat_interleave(torch.arange(len(queries_CD)), mined.offsets.diff())
        of_each = float(costs_MC[mined.sentences].sum(dim=1).float().mean())
        share = float(costs_MC[mined.sentences, classes].float().mean())
        yield f"| {strategy} | {of_each:.1f} | {100 * share:.0f} % |"


def replace_random(mined: MinedNegatives) -> MinedNegatives:
    """The same with none of them called random."""
    return replace(mined, n_random=torch.zeros_like(mined.n_random))


def _mined_line(what: str, who: str, margin: str, skip: str, cosine: float, false: float, known: int) -> str:
    return f"| {what} | {who} | {margin} | {skip} | {cosine:.2f} | {100 * false:.1f} % | {known:,} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.negatives_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--labels", type=Path, required=True, help="what the captions' photographs show")
    parser.add_argument("--read", type=int, default=0, help="so many false negatives to be read")
    parser.add_argument("--work", type=Path, help="folder where sentences stay encoded; default a passing one")
    options = parser.parse_args(arguments)
    truth = LabelledPhotographs.read(options.labels)
    encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
    with tempfile.TemporaryDirectory() as passing:
        store = labelled_captions(options.work or Path(passing), encoder, vocabulary)
        queries = zero_shot_prompts(encoder, vocabulary).global_vectors
        for line in (
            *mined_table(store, queries, truth),
            "",
            *pairs_table(store, queries),
            "",
            *false_sentences(store, queries, truth, options.read),
        ):
            print(line, flush=True)


if __name__ == "__main__":
    main()
