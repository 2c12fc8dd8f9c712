"""Class names as token ids, with room for learned contexts.

Shape legend: C classes, L token positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tai_engine.errors import UserError, unknown_choice
from tai_engine.vocabulary import prompt_words

POSITIONS = ("end", "middle", "front")
"""Where the class name stands: after all contexts, between their halves, before all of them."""


def contexts_before_name(n_contexts: int, position: str) -> int:
    """How many contexts stand before the class name.

    Raises:
        UserError: for an unknown position.
    """
    if position not in POSITIONS:
        raise unknown_choice("position of the class name", position, POSITIONS)
    return {"end": n_contexts, "middle": n_contexts // 2, "front": 0}[position]


class Prompt(NamedTuple):
    """Token ids of one prompt, or of a part of it, and for each the context that takes its place (-1: none)."""

    ids: list[int]
    contexts: list[int]


@dataclass(frozen=True)
class PromptTokens:
    """The token ids of every class's prompt around its contexts.

    A prompt is ``start, contexts and name, end, padding``. Names have different lengths and are never padded here.

    Attributes:
        start: ids before everything else: the start-of-text token, or none.
        names: C tuples of ids of the bare name.
        ends: C tuples of ids after name and contexts: the full stop and the end-of-text token.
        placeholder: the id of an ordinary word, put where contexts go.
        padding: the id that fills the rest of the context.
        context_length: positions of the text tower.
        labels: C names for messages.
    """

    start: tuple[int, ...]
    names: tuple[tuple[int, ...], ...]
    ends: tuple[tuple[int, ...], ...]
    placeholder: int
    padding: int
    context_length: int
    labels: tuple[str, ...]

    def prompts(self, n_contexts: int, position: str) -> list[Prompt]:
        """The prompt of every class.

        Raises:
            UserError: for an unknown position, or a prompt that does not fit into the text tower.
        """
        before = contexts_before_name(n_contexts, position)
        for label, name, end in zip(self.labels, self.names, self.ends, strict=True):
            length = len(self.start) + n_contexts + len(name) + len(end)
            if length > self.context_length:
                raise UserError(
                    f"The class {label!r} with {n_contexts} contexts takes {length} tokens but the text tower has "
                    f"{self.context_length}; shorten the name or use fewer contexts."
                )
        first, rest = list(range(before)), list(range(before, n_contexts))
        prompts = []
        for name, end in zip(self.names, self.ends, strict=True):
            contexts = [-1] * len(self.start) + first + [-1] * len(name) + rest + [-1] * len(end)
            ids = [*self.start, *[self.placeholder] * before, *name, *[self.placeholder] * len(rest), *end]
            prompts.append(Prompt(ids, contexts))
        return prompts


def tokenize_prompts(
    tokenizer: Callable[[list[str]], Tensor], class_names: Sequence[str], context_length: int | None = None
) -> PromptTokens:
    """Tokenise ``"name."`` for every class and find out what the tokenizer puts around it.

    Names are spelt as `prompt_words` has them. What all texts begin with is the start, what an empty text is filled
    with the padding; so any tokenizer of open_clip will do.

    Args:
        tokenizer: C texts to [C, L] ids, as ``open_clip.get_tokenizer`` gives it.
        class_names: C names.
        context_length: positions of the text tower; by default L.

    Raises:
        UserError: for no class at all, a name without a token, or one that fills the tokenizer's context alone.
    """
    if not class_names:
        raise UserError("There is no class to make a prompt for; the vocabulary needs at least one name.")
    plain = [prompt_words(name) for name in class_names]
    probes = tokenizer(["", "dog", "a", "7"]).tolist()
    padding = probes[0][-1]
    contents = [_content(row, padding) for row in probes]
    n_start = 0
    while all(len(c) > n_start and c[n_start] == contents[1][n_start] for c in contents[1:]):
        n_start += 1
    n_end = len(contents[0]) - n_start if len(contents[0]) > n_start else 0
    names, ends = [], []
    for label, bare, sentence in zip(
        class_names, tokenizer(plain).tolist(), tokenizer([f"{name}." for name in plain]).tolist(), strict=True
    ):
        content = _content(sentence, padding)
        # In "St." the name's own stop and ours are one token; the name still takes as many tokens as it has alone.
        n_name = len(_content(bare, padding)) - n_start - n_end
        if n_name < 1:
            raise UserError(f"The class name {label!r} holds nothing that the model's tokenizer knows; rename it.")
        if len(content) >= len(sentence):
            raise UserError(
                f"The class name {label!r} fills all {len(sentence)} tokens of the text tower; shorten it so that "
                "contexts fit in."
            )
        names.append(tuple(content[n_start : n_start + n_name]))
        ends.append(tuple(content[n_start + n_name :]))
    return PromptTokens(
        start=tuple(contents[1][:n_start]),
        names=tuple(names),
        ends=tuple(ends),
        placeholder=contents[2][n_start],
        padding=padding,
        context_length=context_length or len(probes[0]),
        labels=tuple(class_names),
    )


def word_ids(tokenizer: Callable[[list[str]], Tensor], tokens: PromptTokens, words: str) -> Tensor:
    """[K] int64: the ids of ``words`` without start, end and padding.

    Raises:
        UserError: if the words hold no token.
    """
    empty, row = tokenizer(["", words.replace("_", " ")]).tolist()
    n_start, n_end = len(tokens.start), len(_content(empty, tokens.padding)) - len(tokens.start)
    content = _content(row, tokens.padding)
    ids = content[n_start : len(content) - max(n_end, 0)]
    if not ids:
        raise UserError(f"The initial words {words!r} hold nothing that the model's tokenizer knows; give real words.")
    return torch.tensor(ids, dtype=torch.int64)


def _content(row: list[int], padding: int) -> list[int]:
    """A row without the padding at its end."""
    length = len(row)
    while length and row[length - 1] == padding:
        length -= 1
    return row[:length]
