"""What hard negatives are, and what tuning with them does: on the built-in captions, whose photographs are labelled.

    python -m tai_benchmarks.negatives_study --labels FILE          # what is mined
    python -m tai_benchmarks.negatives_study --clip FILE.npz        # what it does to class vectors of a real CLIP

A sentence is a negative of a class that it does not name; it is a false one if its photograph shows the class all the
same. FILE has a line for each photograph: COCO's number, then the numbers of the classes among COCO's 80 that it
shows. For every guard (`NegativeConfig`) the table has the mean cosine of what is mined to its class and the share
that is false; once with every sentence that does not name the class, and once with those alone of whose photograph no
caption names it. A second table has of how many pairs of a sentence and an absent class the ranking loss learns at
first: those where a class that the sentence names does not beat the absent one by the margin.

The second form has nothing but vectors (CLIP ViT-B/32's of 500 sentences, 489 photographs and 80 names), and no text
tower: the class vectors themselves learn, from the names' on, by the ranking loss over coarse scores, and are judged
by the photographs, standardised.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.photo_tuning import MODEL, labelled_captions
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError
from tai_engine.evaluation.bootstrap import Interval, compare
from tai_engine.prompts.losses import ranking_loss
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.sentences.built_in import built_in_captions
from tai_engine.sentences.corpus import image_key
from tai_engine.sentences.nouns import NounFilter
from tai_engine.sentences.read import read_sentences
from tai_engine.store import FeatureStore
from tai_engine.tagging.normalisation import normalise
from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.config import STRATEGIES
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import MinedNegatives, make_strategy, mix_into_batch
from tai_engine.tuning.sentence_table import SentenceTable, StoredVectors, split_sentences
from tai_engine.vocabulary import load_vocabulary

GUARDS = ((0.0, 0), (0.1, 5), (0.3, 5), (0.5, 5), (0.3, 50), (0.7, 5))
"""Margins and numbers of the most similar sentences that are skipped; the second pair is the default."""
STEPS, RATE, BATCH, SCALE = 200, 0.02, 128, 4.0
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


def false_share(
    mined: MinedNegatives, keys: Sequence[str | None], truth: LabelledPhotographs
) -> tuple[float, float, int]:
    """Mean cosine, the share of false negatives, and of how many that is known; random ones among them left out."""
    cosines, false, known = [], 0, 0
    for c in range(len(mined.offsets) - 1):
        sentences, similarities = mined.of(c)
        hard = len(sentences) - int(mined.n_random[c])
        for sentence, similarity in zip(sentences[:hard].tolist(), similarities[:hard].tolist(), strict=True):
            cosines.append(similarity)
            shown = truth.classes.get(keys[sentence] or "")
            if shown is not None:
                known += 1
                false += c in shown
    return float(np.mean(cosines)) if cosines else float("nan"), false / max(known, 1), known


def mined_table(store: FeatureStore, queries_CD: Tensor, truth: LabelledPhotographs) -> Iterator[str]:
    """Lines of Markdown: what each guard lets through."""
    table = split_sentences(store, 0.0).training
    keys, vectors = photograph_keys(store, table), StoredVectors(store, table)
    yield "| negatives | the class is named by no | margin | skipped | mean cosine | false | known pairs |"
    yield "|---|---|---|---|---|---|---|"
    holders = {"sentence": table.holders(), "caption of the photograph": photograph_holders(table, keys)}
    random = make_strategy(NegativeConfig(strategy="random"), vectors, holders["sentence"]).mine(queries_CD, 0)
    every = replace_random(random)
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
    vectors, labels_MC = StoredVectors(store, table), table.labels(torch.arange(len(table)))
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


@dataclass(frozen=True, eq=False)
class VectorsOnly:
    """Unit vectors of a model without the model.

    Attributes:
        sentences: [M, D] of sentences that name a class.
        labels: [M, C] bool.
        pictures: [N, D].
        truth: [N, C] int8, +1 and -1.
        names: [C, D] of the classes' names.
    """

    sentences: Tensor
    labels: Tensor
    pictures: Tensor
    truth: np.ndarray[tuple[int, ...], np.dtype[np.int8]]
    names: Tensor

    @classmethod
    def read(cls, path: Path) -> VectorsOnly:
        """Arrays of a .npz file: sentence_features, sentences, image_features, caption_labels, class_features."""
        with np.load(path) as arrays:
            data = {name: arrays[name] for name in arrays.files}
        vocabulary = load_vocabulary("coco80")
        nouns = NounFilter(vocabulary)
        labels = torch.zeros(len(data["sentences"]), len(vocabulary), dtype=torch.bool)
        for row, sentence in enumerate(data["sentences"].tolist()):
            labels[row, list(nouns.classes_in(sentence))] = True
        kept = labels.any(dim=1)
        sentences, pictures, names = (
            normalize(torch.from_numpy(data[name]).float(), dim=1)
            for name in ("sentence_features", "image_features", "class_features")
        )
        truth = np.where(data["caption_labels"] > 0, 1, -1).astype(np.int8)
        return cls(sentences[kept], labels[kept], pictures, truth, names)

    def scores(self, classes_CD: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """[N, C], standardised."""
        return normalise(SCALE * self.pictures @ classes_CD.T, "standard").numpy()

    def learned(self, strategy: str, seed: int) -> Tensor:
        """[C, D] class vectors after `STEPS` steps of SGD on batches of sentences."""
        generator = torch.Generator().manual_seed(seed)
        classes_CD = self.names.clone().requires_grad_()
        optimizer = torch.optim.SGD([classes_CD], lr=RATE, momentum=0.9)
        mined = None
        for step in range(STEPS):
            unit_CD = normalize(classes_CD, dim=1)
            if strategy != "none" and step % (STEPS // 10) == 0:
                holders = Holders.from_dense(self.labels)
                config = NegativeConfig(strategy=strategy, seed=seed)
                found = make_strategy(config, self.sentences, holders, device="cpu")
                mined = found.mine(unit_CD.detach(), step)
            batch = torch.randperm(len(self.sentences), generator=generator)[:BATCH]
            if mined is not None:
                batch = mix_into_batch(batch, mined, 0.25, generator)
            loss = ranking_loss(SCALE * self.sentences[batch] @ unit_CD.T, self.labels[batch])
            optimizer.zero_grad()
            (loss / 80).backward()
            optimizer.step()
        return normalize(classes_CD.detach(), dim=1)


def vectors_table(data: VectorsOnly, seeds: tuple[int, ...] = (1, 2, 3)) -> Iterator[str]:
    """Lines of Markdown: class vectors learned with each strategy, against the names' and against none."""
    yield "| negatives | seed | mAP % | against the names | against none |"
    yield "|---|---|---|---|---|"
    names = data.scores(data.names)
    plain = {seed: data.scores(data.learned("none", seed)) for seed in seeds}
    for strategy in STRATEGIES:
        for seed in seeds:
            found = plain[seed] if strategy == "none" else data.scores(data.learned(strategy, seed))
            first, second = compare(names, found, data.truth), compare(plain[seed], found, data.truth)
            gains = " | ".join(_points(one.difference) for one in (first, second))
            yield f"| {strategy} | {seed} | {100 * first.second.value:.1f} | {gains} |"


def _points(one: Interval) -> str:
    return f"{100 * one.value:+.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.negatives_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--labels", type=Path, help="what the captions' photographs show")
    parser.add_argument("--clip", type=Path, help="vectors of a real CLIP")
    parser.add_argument("--work", type=Path, help="folder where sentences stay encoded; default a passing one")
    options = parser.parse_args(arguments)
    if options.labels is not None:
        truth = LabelledPhotographs.read(options.labels)
        encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
        with tempfile.TemporaryDirectory() as passing:
            store = labelled_captions(options.work or Path(passing), encoder, vocabulary)
            queries = zero_shot_prompts(encoder, vocabulary).global_vectors
            for line in (*mined_table(store, queries, truth), "", *pairs_table(store, queries)):
                print(line, flush=True)
    if options.clip is not None:
        for line in vectors_table(VectorsOnly.read(options.clip)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
