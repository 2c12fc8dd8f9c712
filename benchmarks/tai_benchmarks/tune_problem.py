"""What the tuning benchmark tunes: a text tower of CLIP's RN50 with random weights, class names, and sentences.

The published formulation and ours get the same tower, contexts, prompts, sentences and labels. Nothing is downloaded:
what weights say does not change how long a step takes.

Shape legend: N sentences, L token positions, T rows of all sentences, C classes, D embedding size, K contexts, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.published_tuning import PublishedTuning
from tai_engine.encoders.text import text_tower
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.learner import PromptLearner
from tai_engine.prompts.tokens import PromptTokens, tokenize_prompts
from tai_engine.prompts.tower import PromptTower
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, StoreSpec
from tai_engine.tuning import TuningConfig
from tai_engine.vocabulary import load_vocabulary

SHORTEST, MEAN_TOKENS = 8, 13.5  # start and end of text included
_FIRST_WORD, _LAST_WORD, _START, _END = 320, 40_000, 49_406, 49_407
_SPACE = "random weights"


class TowerSize(NamedTuple):
    """Of a text tower; the default is that of OpenAI's RN50."""

    width: int = 512
    heads: int = 8
    layers: int = 12
    dim: int = 1024
    context_length: int = 77


def class_names(count: int) -> tuple[str, ...]:
    """COCO's names, and pairs of them where more are wanted."""
    names = load_vocabulary("coco80").names
    pairs = [f"{first} {second}" for first in names for second in names]
    found = tuple(dict.fromkeys([*names, *pairs]))[:count]
    if len(found) < count:
        raise ValueError(f"there are names for {len(found)} classes, not for {count}")
    return found


def random_model(size: TowerSize) -> Any:
    """An open_clip CLIP as it is before training; its picture tower is as small as can be and never runs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=size.dim,
            quick_gelu=True,
            vision_cfg={"layers": 1, "width": 64, "patch_size": 32, "image_size": 32},
            text_cfg={
                "context_length": size.context_length,
                "vocab_size": _END + 1,
                "width": size.width,
                "heads": size.heads,
                "layers": size.layers,
            },
        )
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class TuneProblem:
    """One case.

    Attributes:
        classes: C.
        sentences: N of a batch.
        size: of the text tower.
        n_contexts: K.
        device: of the tower and what is learned; sentences and their features stay on the CPU.
    """

    classes: int
    sentences: int
    size: TowerSize = field(default_factory=TowerSize)
    n_contexts: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def model(self) -> Any:
        """The frozen tower."""
        return random_model(self.size).to(self.device)

    @cached_property
    def tokens(self) -> PromptTokens:
        """Of the class names."""
        tokenizer = open_clip.SimpleTokenizer(context_length=self.size.context_length)
        return tokenize_prompts(tokenizer, class_names(self.classes))

    @cached_property
    def config(self) -> TuningConfig:
        """The published recipe without an end."""
        return TuningConfig(
            n_contexts=self.n_contexts, batch_size=self.sentences, epochs=1_000_000, warmup_epochs=0, held_out=0
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self.tokens.labels

    def learner(self) -> PromptLearner:
        """Ours, at its start."""
        return PromptLearner(PromptTower(self.model, self.tokens, n_contexts=self.n_contexts))

    def published(self) -> PublishedTuning:
        """The baseline, from the same contexts."""
        rows = [prompt.ids for prompt in self.tokens.prompts(self.n_contexts, "end")]
        tokens_CL = torch.tensor([row + [0] * (self.size.context_length - len(row)) for row in rows])
        start = self.learner().contexts()
        return PublishedTuning(
            self.model,
            tokens_CL.to(self.device),
            start["global_contexts"],
            start["local_contexts"],
            temperature=self.config.text_temperature,
            scale=self.config.scale,
        )

    def sentence_tokens(self, count: int) -> Tensor:
        """[N, L] int64: sentences of 13.5 tokens on average, padded with zeros."""
        random = np.random.default_rng(0)
        lengths_N = SHORTEST + random.poisson(MEAN_TOKENS - SHORTEST, count)
        lengths_N = np.minimum(lengths_N, self.size.context_length)
        tokens_NL = torch.zeros(count, self.size.context_length, dtype=torch.int64)
        for row, length in zip(tokens_NL, lengths_N, strict=True):
            words = random.integers(_FIRST_WORD, _LAST_WORD, length - 2).tolist()
            row[:length] = torch.tensor([_START, *words, _END])
        return tokens_NL

    def labels(self, count: int) -> list[tuple[int, ...]]:
        """One to three classes each."""
        random = np.random.default_rng(1)
        return [
            tuple(
                sorted(
                    random.choice(self.classes, random.integers(1, min(3, self.classes) + 1), replace=False).tolist()
                )
            )
            for _ in range(count)
        ]

    def encode(self, tokens_NL: Tensor) -> FeatureBatch:
        """The sentences' true features in fp32, as a store has them."""
        tower = text_tower(self.model)
        lengths_N = tower.lengths(tokens_NL)
        with torch.no_grad():
            coarse, fine = tower.compute(tokens_NL.to(self.device), lengths_N, True)
        assert fine is not None
        return _batch(normalize(coarse, dim=1).cpu(), normalize(fine, dim=1).cpu(), lengths_N)

    def random_features(self, tokens_NL: Tensor) -> FeatureBatch:
        """Random unit rows of the sentences' lengths in fp16, as a store has them by default."""
        generator = torch.Generator().manual_seed(2)
        lengths_N = tokens_NL.argmax(dim=1) + 1
        coarse, fine = (
            normalize(torch.randn(count, self.size.dim, generator=generator), dim=1).half()
            for count in (len(tokens_NL), int(lengths_N.sum()))
        )
        return _batch(coarse, fine, lengths_N)


def _batch(coarse: Tensor, fine: Tensor, lengths_N: Tensor) -> FeatureBatch:
    ids = tuple(map(str, range(len(coarse))))
    return FeatureBatch(ids, coarse, fine, offsets_from_counts(lengths_N), _SPACE)


def write_store(path: Path, problem: TuneProblem, batches: int) -> FeatureStore:
    """A store of ``batches`` batches of the problem's sentences, with random features of their lengths in fp16."""
    tokens_NL, labels = problem.sentence_tokens(problem.sentences), problem.labels(problem.sentences)
    spec = StoreSpec(
        kind="sentences",
        space_key=_SPACE,
        recipe_key=_SPACE,
        dim=problem.size.dim,
        rows_per_item_max=problem.size.context_length,
        group_items=problem.sentences,
        chunk_items=problem.sentences,
        has_text=True,
        labels=LabelSpec(problem.class_names, "benchmark", "benchmark"),
    )
    store = FeatureStore.create(path, spec)
    batch = problem.random_features(tokens_NL)
    with store.writing():
        for group in range(batches):
            items = [StoredItem(f"{group}/{n}", text=str(n), labels=classes) for n, classes in enumerate(labels)]
            renamed = replace(batch, ids=tuple(item.id for item in items), check_fine=False)
            store.write_group(group, items, [renamed])
    return store
