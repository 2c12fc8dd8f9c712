"""Embedding spaces: only vectors of one are ever compared."""

from __future__ import annotations

from typing import Protocol

from tai_engine.errors import UserError


class OfSpace(Protocol):
    """What has vectors, or is described by theirs: features, a store's spec, prompts, an encoder."""

    @property
    def space_key(self) -> str:
        """Architecture, tokenizer and weights that the vectors are of."""

    @property
    def dim(self) -> int:
        """D, the size of the joint embedding."""


def require_same_space(first: OfSpace, second: OfSpace, first_name: str, second_name: str) -> None:
    """Refuse to mix embedding spaces.

    Args:
        first: one thing.
        second: another; of one space two things that differ in D do not say the truth.
        first_name: what the one is, for the message.
        second_name: what the other is.

    Raises:
        UserError: naming both keys, or both sizes, when they differ.
    """
    if first.space_key != second.space_key:
        raise UserError(
            f"{first_name} is of the embedding space {first.space_key!r} but {second_name} is of {second.space_key!r}: "
            "features and prompts are only comparable within one space; make both with the same model and weights."
        )
    if first.dim != second.dim:
        raise UserError(
            f"The vectors of {first_name} have {first.dim:,} numbers and those of {second_name} {second.dim:,}, though "
            f"both say that they are of the space {first.space_key!r}: one of the two is not what its maker wrote; "
            "make it anew."
        )
