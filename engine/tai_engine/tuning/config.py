"""How prompts are tuned: the published recipe, and what may be changed of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tai_engine.errors import UserError, unknown_choice
from tai_engine.prompts.losses import LOSSES
from tai_engine.tagging.normalisation import NORMALISATIONS

SCHEDULES = ("cosine", "constant")
KEEPS = ("last", "best")
PARTIAL_LOSS = "asl_partial"
"""The one that passes over unknown labels."""
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "tai-dpt": {},
    "coop": {
        "learning_rate": 2e-3,
        "epochs": 50,
        "batch_size": 32,
        "held_out": 0.0,
        "text_temperature": 40.0,
        "image_temperature": 40.0,
    },
    "dualcoop": {
        "learning_rate": 2e-3,
        "epochs": 50,
        "batch_size": 64,
        "held_out": 0.0,
        "class_specific": True,
        "loss": PARTIAL_LOSS,
    },
}
"""What is learned, with its own defaults. ``tai-dpt``: Guo et al., arXiv 2211.12739. ``coop``: the same two sets of
contexts with the rates of Zhou et al. (arXiv 2109.01134) for few labelled pictures, and tau of pictures. ``dualcoop``:
Sun et al., arXiv 2206.09541, for partly labelled pictures."""
# Published pairs are 50 for sentences and 40 for the pictures of VOC and COCO.
IMAGE_TO_TEXT_TEMPERATURE = 0.8


STRATEGIES = ("none", "random", "hard")
"""``none``: training sees the sentences as they come."""


@dataclass(frozen=True)
class NegativeConfig:
    """How negatives are found and how many of them train.

    Attributes:
        strategy: one of ``STRATEGIES``.
        share: part of a training batch that mined sentences fill, in [0, 1].
        per_class: sentences mined for each class, at least 1.
        refresh: ``"epoch"``, or the number of steps after which class vectors have moved enough to mine again.
        margin: guard, in [0, 1]: the highest similarity taken lies this part of the way down from the mean similarity
            of the class's own sentences to that of all sentences. It is relative because cosines of texts lie in
            another narrow range for every model.
        skip_top: guard, from 0 to 1000: so many of the most similar sentences that are left below it are left out too.
        random_share: guard, in [0, 1]: part of ``per_class`` that is drawn at random among sentences without the class.
        seed: of every random choice; with the count of refreshes it decides them, so a run can be resumed.
    """

    strategy: str = "hard"
    share: float = 0.25
    per_class: int = 64
    refresh: str | int = "epoch"
    margin: float = 0.1
    skip_top: int = 5
    random_share: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown_choice("strategy for negatives", self.strategy, STRATEGIES)
        for name in ("share", "margin", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"The {name} of negatives is {getattr(self, name)}; it has to lie between 0 and 1.")
        if self.per_class < 1:
            raise UserError(f"The number of negatives per class is {self.per_class}; it has to be 1 or more.")
        if not 0 <= self.skip_top <= 1000:
            raise UserError(f"The number of top negatives to skip is {self.skip_top}; it has to be from 0 to 1000.")
        if self.refresh != "epoch" and not (isinstance(self.refresh, int) and self.refresh >= 1):
            raise UserError(
                f"The refresh of negatives is {self.refresh!r}; it has to be 'epoch' or a number of steps from 1 on."
            )

    def refresh_before(self, step: int, steps_per_epoch: int) -> int | None:
        """Which mining, counted from 0, is due before ``step`` (counted from 0 over the whole run); None for none."""
        number, rest = divmod(step, steps_per_epoch if self.refresh == "epoch" else int(self.refresh))
        return None if rest else number


@dataclass(frozen=True)
class TuningConfig:
    """A tuning run. The defaults are those of Guo et al. (arXiv 2211.12739) for VOC and COCO with OpenAI's RN50.

    The published code takes the best of all epochs by test images. Here nothing but sentences is ever looked at.

    Attributes:
        n_contexts: learned vectors per prompt.
        class_specific: contexts for every class of its own, instead of shared ones.
        position: of the class name among the contexts: end, middle or front.
        loss: one of ``LOSSES``; it is taken of the coarse and of the fine scores and summed.
        scale: k, the factor on every cosine.
        text_temperature: tau of the softmax over the rows of a sentence.
        image_temperature: tau that goes with the prompts for pictures; None is 0.8 of ``text_temperature``, the
            published relation. Sentences cannot tell it.
        epochs: passes over the training sentences.
        batch_size: sentences a step; the last, incomplete batch of an epoch is left out, as published.
        learning_rate: of SGD after the warm-up.
        schedule: ``cosine`` or ``constant``; it moves once an epoch, as published.
        warmup_epochs: first epochs at ``warmup_learning_rate``.
        warmup_learning_rate: see there.
        momentum: of SGD.
        weight_decay: of SGD.
        seed: of the contexts, the order of the sentences and what is mined.
        held_out: share of the sentences that is never trained on, for the figures of each epoch; 0 for none.
        patience: stop after so many epochs without a better held-out mAP; None never stops early.
        keep: which contexts are the result: ``last``, or ``best`` by held-out mAP.
        noise: mean length of the Gaussian noise added to the sentences' vectors, whose length is 1; 0, as published,
            adds none. About 1 keeps contexts from drifting where sentences alone decide nothing.
        start_share: share of the class vectors that tuning started from in those that come out, from 0 (as published)
            to below 1: what was learned from sentences is weighed against what the model knew, as Wortsman et al. do it
            with weights ("Robust fine-tuning of zero-shot models", CVPR 2022). For contexts that start from words.
        normalise: how pictures' scores of these prompts are normalised unless tagging is told otherwise, one of
            `NORMALISATIONS`. Sentences cannot tell it.
        negatives: how negatives are found.
        window_groups: commit groups of the store that are shuffled together; memory is theirs.
        system: one of ``SYSTEMS``; `of_system` takes its defaults.
        known: share of the labels of pictures that are known, drawn by ``seed``; below 1 it takes ``PARTIAL_LOSS``.
        shots: labelled pictures of each class that are trained on, drawn by ``seed``; None for all.

    Raises:
        UserError: for an unknown name or a number out of range.
    """

    n_contexts: int = 16
    class_specific: bool = False
    position: str = "end"
    loss: str = "ranking"
    scale: float = 4.0
    text_temperature: float = 50.0
    image_temperature: float | None = None
    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: int = 1
    warmup_learning_rate: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 1
    held_out: float = 0.05
    patience: int | None = None
    keep: str = "last"
    noise: float = 0.0
    start_share: float = 0.0
    normalise: str = "none"
    negatives: NegativeConfig = field(default_factory=lambda: NegativeConfig(strategy="none"))
    window_groups: int = 8
    system: str = "tai-dpt"
    known: float = 1.0
    shots: int | None = None

    def __post_init__(self) -> None:
        for what, given, choices in (
            ("system", self.system, tuple(SYSTEMS)),
            ("loss", self.loss, tuple(LOSSES)),
            ("schedule", self.schedule, SCHEDULES),
            ("choice of what to keep", self.keep, KEEPS),
            ("normalisation", self.normalise, NORMALISATIONS),
        ):
            if given not in choices:
                raise unknown_choice(what, given, choices)
        at_least_one, above, from_zero = "a whole number from 1", "a number above 0", "a number from 0"
        limits: dict[str, tuple[bool, str]] = {}
        for name in ("n_contexts", "epochs", "batch_size", "window_groups"):
            limits[name] = getattr(self, name) >= 1, at_least_one
        for name in ("scale", "text_temperature", "learning_rate"):
            limits[name] = 0 < getattr(self, name) < math.inf, above
        for name in ("warmup_epochs", "warmup_learning_rate", "weight_decay", "noise"):
            limits[name] = 0 <= getattr(self, name) < math.inf, from_zero
        limits["momentum"] = 0 <= self.momentum < 1, "a number from 0 and below 1"
        limits["start_share"] = 0 <= self.start_share < 1, "a share from 0 and below 1"
        limits["held_out"] = 0 <= self.held_out <= 0.5, "a share from 0 to 0.5"
        limits["known"] = 0 < self.known <= 1, "a share above 0, at most 1"
        if self.shots is not None:
            limits["shots"] = self.shots >= 1, at_least_one
        limits["seed"] = 0 <= self.seed < 2**63, "a whole number from 0"
        if self.image_temperature is not None:
            limits["image_temperature"] = 0 < self.image_temperature < math.inf, above
        if self.patience is not None:
            limits["patience"] = self.patience >= 1, "a number of epochs from 1"
        for name, (holds, allowed) in limits.items():
            if not holds:
                raise UserError(f"The setting {name} of tuning is {getattr(self, name)}; it has to be {allowed}.")
        if self.known < 1 and self.loss != PARTIAL_LOSS:
            raise UserError(
                f"Of the labels {self.known:g} are known, but the loss {self.loss!r} takes unknown ones for absent: "
                f"take --system dualcoop, or --loss {PARTIAL_LOSS}."
            )
        if not self.held_out and (self.patience is not None or self.keep == "best"):
            raise UserError(
                "Stopping early and keeping the best epoch go by held-out sentences, but held_out is 0; hold some out, "
                "or keep the last epoch."
            )

    @classmethod
    def of_system(cls, system: str, **said: Any) -> TuningConfig:
        """The defaults of a system, changed where something is said.

        Raises:
            UserError: for an unknown system, and as the class.
        """
        if system not in SYSTEMS:
            raise unknown_choice("system", system, tuple(SYSTEMS))
        return cls(**{**SYSTEMS[system], **said, "system": system})

    @property
    def temperature_for_images(self) -> float:
        """``image_temperature``, or the published share of ``text_temperature``."""
        if self.image_temperature is None:
            return IMAGE_TO_TEXT_TEMPERATURE * self.text_temperature
        return self.image_temperature

    def learning_rate_of(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        ``½·(1 + cos(π·(epoch − warmup_epochs)/epochs))`` of ``learning_rate`` after the warm-up. As in the published
        code the period is the number of all epochs, so the last one does not come down to 0.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_learning_rate
        if self.schedule == "constant":
            return self.learning_rate
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / self.epochs))

    def as_recipe(self) -> dict[str, Any]:
        """Everything as JSON, for the record."""
        return {**asdict(self), "temperature_for_images": self.temperature_for_images}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes, as ``name old then, new now``."""
    missing = "not set"
    lines = []
    for name in sorted({*old, *new}):
        before, now = old.get(name, missing), new.get(name, missing)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += [f"{name}.{line}" for line in differences(before, now)]
        elif before != now:
            lines.append(f"{name} {before!r} then, {now!r} now")
    return lines
