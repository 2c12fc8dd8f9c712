from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.faiss_library import faiss
from tai_engine.tuning.config import STRATEGIES, NegativeConfig
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import (
    HardNegatives,
    MinedNegatives,
    describe,
    draw_outside,
    make_strategy,
    mix_into_batch,
)

M, C, D = 600, 5, 16


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences that lean towards the classes they hold, as real ones do; labels; class vectors."""
    classes = unit(C, D, seed=seed + 1)
    labels = torch.rand(M, C, generator=torch.Generator().manual_seed(seed)) < 0.2
    return normalize(unit(M, D, seed=seed + 2) + 0.6 * labels.float() @ classes, dim=1), labels, classes


def brute_force_hard(vectors: Tensor, labels: Tensor, query: Tensor, c: int, config: NegativeConfig) -> list[int]:
    """What the description says, sentence by sentence, in fp64."""
    similarities = vectors.double() @ query.double()
    own, everything = float(similarities[labels[:, c]].mean()), float(similarities.mean())
    ceiling = own - config.margin * abs(own - everything)
    outside = [m for m in similarities.argsort(descending=True).tolist() if not labels[m, c]]
    allowed = [m for m in outside if float(similarities[m]) <= ceiling]
    return allowed[config.skip_top :][: config.per_class - round(config.random_share * config.per_class)]


@pytest.mark.parametrize(
    "config",
    [
        NegativeConfig(per_class=20),
        NegativeConfig(per_class=20, random_share=0.0, margin=0.0, skip_top=0),
        NegativeConfig(per_class=1, random_share=0.0),
        NegativeConfig(per_class=2000, skip_top=50, margin=0.5),
        NegativeConfig(per_class=30, margin=1.0, skip_top=1),
    ],
    ids=["default", "no guards", "one", "more than there are", "far below"],
)
def test_hard_negatives_equal_brute_force(config: NegativeConfig):
    vectors, labels, classes = problem()
    mined = make_strategy(config, vectors, Holders.from_dense(labels)).mine(classes, 0)
    for c in range(C):
        sentences, similarities = mined.of(c)
        n_hard = len(sentences) - int(mined.n_random[c])
        assert sentences[:n_hard].tolist() == brute_force_hard(vectors, labels, classes[c], c, config)
        torch.testing.assert_close(similarities, vectors[sentences] @ classes[c])
        assert not bool(labels[sentences, c].any())
        assert len(set(sentences.tolist())) == len(sentences) <= config.per_class
        assert int(mined.n_random[c]) == min(
            round(config.random_share * config.per_class), M - int(labels[:, c].sum()) - n_hard
        )


def test_every_guard_changes_what_is_mined():
    vectors, labels, classes = problem()
    holders = Holders.from_dense(labels)

    def mined(**options: Any) -> list[int]:
        config = NegativeConfig(**{"per_class": 10, "random_share": 0.0, "margin": 0.0, "skip_top": 0} | options)
        return make_strategy(config, vectors, holders).mine(classes, 0).of(0)[0].tolist()

    free = mined()
    assert mined(skip_top=3)[:7] == free[3:]
    assert mined(margin=0.6) != free
    assert mined(random_share=0.5)[:5] == free[:5]
    assert mined(random_share=0.5)[5:] != free[5:]


def test_a_missed_label_is_kept_out_by_the_margin():
    """A sentence as close to the class as those that hold it most likely holds it too."""
    vectors, labels, classes = problem()
    holder = int(labels[:, 0].nonzero()[0])
    vectors[holder] = classes[0]
    missed = labels.clone()
    missed[holder, 0] = False
    unguarded = NegativeConfig(per_class=10, margin=0.0, skip_top=0, random_share=0.0)
    found = make_strategy(unguarded, vectors, Holders.from_dense(missed)).mine(classes, 0).of(0)[0].tolist()
    assert holder not in found  # even then: it lies above the mean of the class's own
    skipping = HardNegatives(vectors, Holders.from_dense(missed), unguarded)._index.search(
        classes.numpy(), np.full(C, np.inf, np.float32), 10
    )
    assert skipping.sentences[0][0] == holder  # without any ceiling it would come first


def test_a_class_without_sentences_gets_random_ones_and_one_with_all_gets_none():
    vectors, labels, classes = problem()
    labels[:, 1], labels[:, 2] = False, True
    mined = make_strategy(NegativeConfig(per_class=8), vectors, Holders.from_dense(labels)).mine(classes, 0)
    assert (len(mined.of(1)[0]), int(mined.n_random[1])) == (2, 2)
    assert len(mined.of(2)[0]) == 0
    assert len(mined.of(0)[0]) == 8


@pytest.mark.parametrize("strategy", ["random", "hard"])
def test_the_refresh_decides_what_is_drawn(strategy: str):
    vectors, labels, classes = problem()
    holders = Holders.from_dense(labels)
    config = NegativeConfig(strategy, per_class=12)
    first, again = (make_strategy(config, vectors, holders).mine(classes, 3) for _ in range(2))
    assert torch.equal(first.sentences, again.sentences)
    assert torch.equal(first.similarities, again.similarities)
    later = make_strategy(config, vectors, holders).mine(classes, 4)
    assert not torch.equal(first.sentences, later.sentences)
    other = make_strategy(NegativeConfig(strategy, per_class=12, seed=2), vectors, holders).mine(classes, 3)
    assert not torch.equal(first.sentences, other.sentences)


def test_hard_negatives_follow_the_class_vectors():
    vectors, labels, classes = problem()
    strategy = make_strategy(NegativeConfig(per_class=10, random_share=0.0), vectors, Holders.from_dense(labels))
    before, after = strategy.mine(classes, 0), strategy.mine(classes.roll(1, 0), 0)
    assert not torch.equal(before.sentences, after.sentences)


def test_random_negatives_are_outside_the_class_and_spread():
    vectors, labels, classes = problem()
    strategy = make_strategy(NegativeConfig("random", per_class=40), vectors, Holders.from_dense(labels))
    counts: Counter[int] = Counter()
    for refresh in range(60):
        mined = strategy.mine(classes, refresh)
        assert mined.offsets.tolist() == [0, 40, 80, 120, 160, 200]
        assert mined.n_random.tolist() == [40] * C
        sentences, similarities = mined.of(3)
        assert not bool(labels[sentences, 3].any())
        assert len(set(sentences.tolist())) == 40
        torch.testing.assert_close(similarities, vectors[sentences] @ classes[3])
        counts.update(sentences.tolist())
    outside = int((~labels[:, 3]).sum())
    assert len(counts) > 0.98 * outside  # 60 draws of 40 among about 480: one is missed with probability 0.5 %
    assert max(counts.values()) < 20  # 5 expected


def test_hard_needs_the_search_and_random_does_not(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("search is broken")

    vectors, labels, classes = problem()
    monkeypatch.setattr(faiss.IndexFlatIP, "search", broken)
    for name in STRATEGIES[1:]:
        strategy = make_strategy(NegativeConfig(name), vectors, Holders.from_dense(labels), device="cpu")
        if name == "hard":
            with pytest.raises(RuntimeError, match="search is broken"):
                strategy.mine(classes, 0)
        else:
            strategy.mine(classes, 0)


# Drawing


@pytest.mark.parametrize(
    ("taken", "free"),
    [([], [0, 1, 2, 3, 4]), ([0, 1], [2, 3, 4]), ([1, 3], [0, 2, 4]), ([4], [0, 1, 2, 3]), ([0, 1, 2, 3, 4], [])],
)
def test_drawing_outside_reaches_exactly_the_free_ones(taken: list[int], free: list[int]):
    numbers = np.array(taken, np.int64)
    assert sorted(draw_outside(numbers, 5, 9, np.random.default_rng(0)).tolist()) == free
    single = {n for s in range(80) for n in draw_outside(numbers, 5, 1, np.random.default_rng(s)).tolist()}
    assert single == set(free)


# Batches


def negatives_of(parts: list[list[int]]) -> MinedNegatives:
    return MinedNegatives.build([(np.array(p, np.int64), np.full(len(p), 0.5, np.float32), 0) for p in parts])


@pytest.mark.parametrize(("share", "n_mined"), [(0.0, 0), (0.25, 2), (0.3, 2), (1.0, 8)])
def test_the_share_of_a_batch_is_mined(share: float, n_mined: int):
    batch = torch.arange(8)
    mixed = mix_into_batch(batch, negatives_of([[100, 101], [], [102]]), share, torch.Generator().manual_seed(0))
    assert mixed.dtype == torch.int64
    assert mixed[: 8 - n_mined].tolist() == list(range(8 - n_mined))
    assert all(int(m) >= 100 for m in mixed[8 - n_mined :])
    assert len(mixed) == 8
    assert batch.tolist() == list(range(8))


def test_every_class_is_asked_alike_and_every_sentence_of_it():
    negatives = negatives_of([[1], [], [2, 3, 4, 5]])
    mixed = mix_into_batch(torch.zeros(8000, dtype=torch.int64), negatives, 1.0, torch.Generator().manual_seed(0))
    counts = Counter(mixed.tolist())
    assert counts[1] == pytest.approx(4000, abs=250)  # 5 standard errors
    for m in (2, 3, 4, 5):
        assert counts[m] == pytest.approx(1000, abs=150)


def test_mixing_is_reproducible_and_needs_negatives():
    batch, negatives = torch.arange(10), negatives_of([[20, 21, 22], [23]])
    first, again = (mix_into_batch(batch, negatives, 0.5, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(mix_into_batch(batch, negatives_of([[], []]), 0.5, torch.Generator()), batch)
    assert mix_into_batch(batch[:0], negatives, 0.5, torch.Generator()).tolist() == []


# Report and settings


def test_the_report_can_be_read():
    negatives = MinedNegatives.build(
        [
            (np.array([2, 0, 1], np.int64), np.array([0.714, 0.6, 0.1], np.float32), 1),
            (np.zeros(0, np.int64), np.zeros(0, np.float32), 0),
        ]
    )
    sentences = ["a horse", "a red car", "a striped horse in a field"]

    def texts(indices: Sequence[int]) -> list[str]:
        return [sentences[i] for i in indices]

    assert describe(negatives, ["zebra", "yeti"], texts) == [
        "zebra ← 'a striped horse in a field' 0.71",
        "zebra ← 'a horse' 0.60",
        "zebra ← 'a red car' 0.10 (random)",
        "Nothing was mined for 1 of 2 classes: yeti.",
    ]
    assert describe(negatives, ["zebra", "yeti"], texts, per_class=1)[:1] == [
        "zebra ← 'a striped horse in a field' 0.71"
    ]


def test_refresh_by_epoch_or_by_steps():
    due = [NegativeConfig(refresh="epoch").refresh_before(step, 4) for step in range(9)]
    assert due == [0, None, None, None, 1, None, None, None, 2]
    due = [NegativeConfig(refresh=3).refresh_before(step, 4) for step in range(9)]
    assert due == [0, None, None, 1, None, None, 2, None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "hrd"}, "did you mean 'hard'"),
        ({"share": 1.5}, "share of negatives is 1.5"),
        ({"margin": -0.1}, "margin of negatives is -0.1"),
        ({"random_share": float("nan")}, "random_share"),
        ({"per_class": 0}, "per class is 0"),
        ({"skip_top": -1}, "skip is -1"),
        ({"refresh": 0}, "refresh of negatives is 0"),
        ({"refresh": "never"}, "'never'"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        NegativeConfig(**options)
