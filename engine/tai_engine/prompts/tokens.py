"""Prompts before they are computed: class names as token ids with room for contexts, packed for a text tower.

Shape legend: C classes, L token positions, W width of the text tower, K contexts per prompt, T packed tokens of several
classes, B classes with S tokens each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from tai_engine.errors import UserError, unknown_choice
from tai_engine.vocabulary import prompt_words

logger = logging.getLogger(__name__)

POSITIONS = ("end", "middle", "front")
"""Where the class name stands: after all contexts, between their halves, before all of them."""
WAYS = ("shared", "cut", "full")  # see `tai_engine.prompts.tower`
# Smaller chunks are as fast, and an allocator keeps more than it gives out.
_CHUNKS_PER_BUDGET = 4


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
        before = {"end": n_contexts, "middle": n_contexts // 2, "front": 0}.get(position)
        if before is None:
            raise unknown_choice("position of the class name", position, POSITIONS)
        prompts, first, rest = [], range(before), range(before, n_contexts)
        for label, name, end in zip(self.labels, self.names, self.ends, strict=True):
            length = len(self.start) + n_contexts + len(name) + len(end)
            if length > self.context_length:
                raise UserError(
                    f"The class {label!r} with {n_contexts} contexts takes {length} tokens but the text tower has "
                    f"{self.context_length}; shorten the name or use fewer contexts."
                )
            contexts = [*[-1] * len(self.start), *first, *[-1] * len(name), *rest, *[-1] * len(end)]
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


@dataclass(frozen=True, eq=False)
class PromptChunk:
    """Prompts of some classes, packed one after the other, those of one length together.

    Attributes:
        classes: [B] int64: which classes, in this order.
        ids: [T] int64.
        positions: [T] int64 in the prompt.
        rows: where in T a context goes.
        contexts: which context goes there, counted over [K, W] or [C * K, W].
        ends: [B] int64: where in T each class ends.
        groups: rows, number of classes and tokens of each, per length.
    """

    classes: Tensor
    ids: Tensor
    positions: Tensor
    rows: Tensor
    contexts: Tensor
    ends: Tensor
    groups: tuple[tuple[slice, int, int], ...]


class PromptPlan(NamedTuple):
    """What a text tower computes for all classes.

    Attributes:
        way: which of ``WAYS`` it goes.
        contexts_before_name: how many of the contexts stand before the class name.
        prefix: what is computed once for all classes; empty where nothing is.
        chunks: the rest of each class's prompt, in pieces that fit, of rising length.
    """

    way: str
    contexts_before_name: int
    prefix: PromptChunk
    chunks: tuple[PromptChunk, ...]


def plan_prompts(
    part: Any,
    tokens: PromptTokens,
    *,
    n_contexts: int,
    class_specific: bool,
    position: str,
    way: str,
    max_tokens: int,
    device: torch.device,
) -> PromptPlan:
    """Choose the way through a text tower, and cut its prompts into what is shared and pieces that fit.

    Arguments and errors are as of `PromptTower`, whose text tower is ``part``. If all own tokens together are more than
    ``max_tokens``, a chunk has at most a quarter of it, but at least one prompt.
    """
    prompts = tokens.prompts(n_contexts, position)
    possible, obstacle = _possible_ways(part, prompts)
    if way not in ("auto", *WAYS):
        raise unknown_choice("way through the text tower", way, ("auto", *WAYS))
    if way not in ("auto", *possible):
        raise UserError(f"The way {way!r} is not possible here, as {obstacle}; use {possible[0]!r} or 'auto'.")
    if way == "auto" and obstacle:
        logger.warning("prompts take the slower %r way: %s", possible[0], obstacle)
    way = possible[0] if way == "auto" else way
    n_start = len(tokens.start)
    before = prompts[0].contexts.index(-1, n_start) - n_start  # -1 is the name's first token
    # The start is the same for all, and so are shared contexts that come next.
    n_prefix = 0 if way != "shared" else n_start + (0 if class_specific else before)
    length = tokens.context_length if way == "full" else 0
    own = []
    for ids, contexts in prompts:
        missing = max(length - len(ids), 0)
        own.append(Prompt(ids[n_prefix:] + [tokens.padding] * missing, contexts[n_prefix:] + [-1] * missing))
    lengths = [len(prompt.ids) for prompt in own]
    if sum(lengths) > max_tokens:
        max_tokens //= _CHUNKS_PER_BUDGET
    together: list[list[int]] = [[]]
    size = 0
    for c in sorted(range(len(lengths)), key=lambda c: lengths[c]):
        if together[-1] and size + lengths[c] > max_tokens:
            together.append([])
            size = 0
        together[-1].append(c)
        size += lengths[c]
    stride = n_contexts if class_specific else 0
    prefix = pack([0], [Prompt(*(row[:n_prefix] for row in prompts[0]))], 0, stride, device)
    return PromptPlan(way, before, prefix, tuple(pack(each, own, n_prefix, stride, device) for each in together))


def _possible_ways(part: Any, prompts: Sequence[Prompt]) -> tuple[list[str], str | None]:
    """Which ways give a tower's own result, the fastest first, and why not a faster one."""
    if not isinstance(part, TextTransformer) and not hasattr(part, "text_pool_type"):
        return ["full"], "the text tower is not one of open_clip's own"
    mask = getattr(part, "attn_mask", None)
    if mask is None or not torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1)):
        return ["full"], "the text tower is not causal"
    if getattr(part, "cls_emb", None) is not None:
        return ["full"], "the text tower reads out an extra class token"
    pool_type = getattr(part, "pool_type", getattr(part, "text_pool_type", None))
    eos_id = getattr(part, "eos_id", getattr(part, "text_eos_id", None))
    for ids, _ in prompts:
        # The first largest id, or the first end-of-text id: the tower reads that position and we read the last.
        last = {"argmax": max(ids), "eos": eos_id}.get(str(pool_type))
        if last is None or last not in ids or ids.index(last) != len(ids) - 1:
            return ["full"], f"the text tower's pooling {pool_type!r} does not read the last token of each prompt"
    for block in part.transformer.resblocks:
        attention = getattr(block, "attn", None)
        if type(block) is not ResidualAttentionBlock or type(attention) is not nn.MultiheadAttention:
            kinds = f"{type(block).__name__} with {type(attention).__name__}"
            return ["cut", "full"], f"blocks of the kind {kinds} are not taken apart"
        if attention.in_proj_weight is None or attention.bias_k is not None or attention.add_zero_attn:
            return ["cut", "full"], "its attention has keys and values beside those of the tokens"
    return ["shared", "cut", "full"], None


def pack(
    classes: Sequence[int], prompts: Sequence[Prompt], first_position: int, stride: int, device: torch.device
) -> PromptChunk:
    """One chunk of the prompts of ``classes``, which are in the order of their lengths.

    They begin at ``first_position`` of the text tower; each class has ``stride`` contexts of its own (0: all share).
    """
    groups: list[tuple[slice, int, int]] = []
    for length, equal in groupby(len(prompts[c].ids) for c in classes):
        count, start = len(list(equal)), groups[-1][0].stop if groups else 0
        groups.append((slice(start, start + count * length), count, length))
    contexts = torch.tensor(
        [i + c * stride if i >= 0 else -1 for c in classes for i in prompts[c].contexts], dtype=torch.int64
    )
    rows = (contexts >= 0).nonzero().flatten()
    positions = [first_position + i for c in classes for i in range(len(prompts[c].ids))]
    return PromptChunk(
        classes=torch.tensor(classes, device=device),
        ids=torch.tensor([i for c in classes for i in prompts[c].ids], dtype=torch.int64, device=device),
        positions=torch.tensor(positions, dtype=torch.int64, device=device),
        rows=rows.to(device),
        contexts=contexts[rows].to(device),
        ends=torch.tensor([len(prompts[c].ids) for c in classes], device=device).cumsum(0) - 1,
        groups=tuple(groups),
    )
