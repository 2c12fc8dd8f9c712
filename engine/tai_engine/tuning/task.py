"""What is tuned: labelled sentences, a text tower and a vocabulary that fit together, and what contexts start from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.prompts.learner import LearnerStart
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.prompts.tokens import tokenize_prompts, word_ids
from tai_engine.prompts.tower import PromptTower
from tai_engine.spaces import require_same_space
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.sentence_table import SentenceStore, Split, split_sentences
from tai_engine.tuning.training_pictures import TrainingPictures
from tai_engine.vocabulary import Vocabulary, comparable_name

Init: TypeAlias = str | PromptSet | Mapping[str, Tensor] | None
"""What contexts start from: words, tuned prompts, contexts by name, or chance."""


class TextModel(Protocol):
    """What tuning needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    model: Any
    space_key: str
    dim: int
    context_length: int
    logit_scale: float
    precision: str

    def tokenize(self, sentences: Sequence[str], /) -> Tensor:
        """[N, context_length] int64."""


@dataclass(frozen=True, eq=False)
class TuningTask:
    """A store, a text tower and a vocabulary that fit together, and a start: everything but the recipe's numbers.

    Attributes:
        store: labelled sentences.
        text_model: the encoder of the store.
        vocabulary: of the labels.
        split: training and held-out sentences.
        start: what learns, and from what it starts.
        identity: all of this that decides what comes of a run, as JSON.
        source: whose sentences teach, where the store or the prompts to start from name it ("builtin"); else None.
    """

    store: SentenceStore
    text_model: TextModel
    vocabulary: Vocabulary
    split: Split
    start: LearnerStart
    identity: Mapping[str, Any]
    source: str | None = None

    @classmethod
    def prepare(
        cls,
        store: SentenceStore,
        text_model: TextModel,
        vocabulary: Vocabulary,
        config: TuningConfig,
        init: Init = None,
        *,
        cuda_graphs: bool = False,
    ) -> TuningTask:
        """Check that all fit, and read which sentences there are.

        Args:
            store: sentences with labels of ``vocabulary``, or `TrainingPictures`.
            text_model: the encoder whose features they are.
            vocabulary: what to tag.
            config: of which the shape of the contexts and the held-out share count here.
            init: words whose embeddings take the contexts nearest to the name, tuned prompts of the same space, or
                contexts by name; None draws them at random.
            cuda_graphs: as `LearnerStart`.

        Raises:
            UserError: for a store of pictures, without labels, of another vocabulary or space, without a sentence to
                train on, or without a held-out one where the recipe goes by these; for prompts of another space to
                start from; and as `PromptTower`.
        """
        if not isinstance(store, TrainingPictures):
            check_store(store, vocabulary)
            if config.known < 1 or config.shots is not None:
                option = "known" if config.known < 1 else "shots"
                raise UserError(f"--{option} is for pictures, but {store.path} holds sentences: leave it out.")
        require_same_space(store.spec, text_model, f"The store {store.path}", "the text tower")
        tokens = tokenize_prompts(text_model.tokenize, vocabulary.names, text_model.context_length)
        tower = PromptTower(
            text_model.model,
            tokens,
            n_contexts=config.n_contexts,
            class_specific=config.class_specific,
            position=config.position,
        )
        words, contexts, said = None, None, "random"
        labels = store.spec.labels  # pictures have theirs beside them
        source = None if labels is None else labels.corpus.get("source")
        source = source if isinstance(source, str) else None
        if isinstance(init, str):
            words, said = tower.embed_words(word_ids(text_model.tokenize, tokens, init)), f"words: {init}"
        elif init is not None:
            if isinstance(init, PromptSet):
                require_same_space(init, store.spec, "The initial prompt set", "the store")
                source = source or init.metadata.get("sentences")
                init = init.contexts
            sums = {name: f"{float(tensor.double().sum()):.12g}" for name, tensor in sorted(init.items())}
            contexts, said = dict(init), f"contexts with the sums {json.dumps(sums)}"
        split = split_sentences(store, config.held_out)
        if not len(split.held_out) and (config.patience is not None or config.keep == "best"):
            raise UserError(
                "Stopping early and keeping the best epoch go by held-out sentences, but of the store "
                f"{store.path} none of its {len(split.training)} sentences is one, as held_out is {config.held_out}; "
                "hold more out, or keep the last epoch."
            )
        identity = {
            "vocabulary": vocabulary.fingerprint,
            "data": store.data_fingerprint,
            "space_key": store.spec.space_key,
            "features": store.spec.recipe_key,
            "init": said,
        }
        start = LearnerStart(tower, words, contexts, is_dual=config.system == "dualcoop", cuda_graphs=cuda_graphs)
        return cls(store, text_model, vocabulary, split, start, identity, source)


def check_store(store: SentenceStore, vocabulary: Vocabulary) -> None:
    """Refuse a store that holds no sentences labelled with the vocabulary.

    Raises:
        UserError: saying what is wrong.
    """
    if store.spec.kind != "sentences":
        raise UserError(
            f"The store {store.path} holds {store.spec.kind}: give their labels with --labels, or a store of "
            "sentences, made with `tai cache texts FILE STORE --vocabulary V`."
        )
    labels = store.spec.labels
    if labels is None:
        raise UserError(
            f"The store {store.path} has no labels; make one with `tai cache texts FILE STORE --vocabulary V`."
        )
    same_names = [*map(comparable_name, store.class_names)] == [*map(comparable_name, vocabulary.names)]
    if labels.vocabulary_fingerprint != vocabulary.fingerprint or not same_names:
        same_name = labels.vocabulary == vocabulary.name
        raise UserError(
            f"The store {store.path} has labels of the vocabulary {labels.vocabulary!r} "
            f"({labels.vocabulary_fingerprint}), but the vocabulary given is "
            f"{'now' if same_name else repr(vocabulary.name)} ({vocabulary.fingerprint}): give the one that labelled "
            "the sentences, or label them anew with `tai cache texts` into another store."
        )
