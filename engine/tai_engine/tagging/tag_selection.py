"""What a user wants of the tags: how many, from which score or promise on, and which words never."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tai_engine.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Which tags of an item are written.

    Attributes:
        top_k: at most so many, best first; None means every class.
        threshold: the least score, as it is written: after normalising. None for no limit.
        min_precision: the least share of right ones among a tag's pictures, as the calibration promises it; None for no
            promise.
        min_probability: the least probability of a tag by the calibration, from 0 to 1; None for no limit.
        always_top: so many are written whatever their threshold.
        never: words that are not wanted.

    `tai_engine.tagging.choosing` has the order in which they are applied.

    Raises:
        UserError: for a count or a probability out of range.
    """

    top_k: int | None = None
    threshold: float | None = None
    min_precision: float | None = None
    min_probability: float | None = None
    always_top: int = 0
    never: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"The number of tags per picture is {self.top_k}; it must be 1 or more.")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise UserError(f"The least probability of a tag is {self.min_probability}; it must lie between 0 and 1.")
        if self.always_top < 0:
            raise UserError(f"The number of tags that are always written is {self.always_top}; it must be 0 or more.")

    @property
    def is_complete(self) -> bool:
        """Whether every class of every item is written, as an exact evaluation needs it."""
        return self == Selection()

    @property
    def said(self) -> dict[str, object]:
        """What was asked for, for people; rules that were not used are left out."""
        unused = asdict(Selection())
        given = {name: value for name, value in asdict(self).items() if value != unused[name]}
        return {"top_k": self.top_k, "threshold": self.threshold, **given}

    @property
    def is_plain(self) -> bool:
        """Whether a number and one threshold decide alone, so that the kernels can choose the tags."""
        return self == Selection(self.top_k, self.threshold)
