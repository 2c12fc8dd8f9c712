"""What became of the sentences of a corpus, with advice for its user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NAMED_AT_MOST = 20


@dataclass
class CorpusReport:
    """What became of every sentence: ``read`` is the sum of the six counts that follow it.

    Attributes:
        class_names: C names.
        class_counts: how many kept sentences name each class; template sentences do not count.
        shared_names: names that stand for several classes once their words are lemmas, with those classes.
        few: classes that fewer sentences name are warned about.
        exclude_list: how many images were to be left out.
        template_sentences: added on top.
    """

    class_names: tuple[str, ...]
    class_counts: list[int]
    shared_names: dict[str, tuple[str, ...]]
    few: int
    exclude_list: int = 0
    read: int = 0
    without_text: int = 0
    excluded: int = 0
    without_class: int = 0
    over_image_limit: int = 0
    over_class_limit: int = 0
    kept: int = 0
    template_sentences: int = 0

    def keep(self, class_indices: Sequence[int]) -> None:
        """Count one more kept sentence."""
        self.kept += 1
        for index in class_indices:
            self.class_counts[index] += 1

    @property
    def labels_per_sentence(self) -> float:
        """Mean number of classes of a kept sentence, 0 without any."""
        return sum(self.class_counts) / self.kept if self.kept else 0.0

    def classes_below(self, count: int) -> list[str]:
        """Names of the classes that fewer sentences than ``count`` name, in vocabulary order."""
        return [name for name, found in zip(self.class_names, self.class_counts, strict=True) if found < count]

    def warnings(self) -> list[str]:
        """What the user should know before tuning, a sentence each, with advice."""
        lines = []
        missing = self.classes_below(1)
        if missing:
            lines.append(
                f"No sentence names {_counted(missing, len(self.class_names))}: add synonyms as people write them, "
                "or sentences about them; template sentences are all they have to learn from."
            )
        rare = [name for name in self.classes_below(self.few) if name not in set(missing)]
        if rare:
            lines.append(
                f"Fewer than {self.few} sentences name {_counted(rare, len(self.class_names))}: their prompts will "
                "learn little; add synonyms or sentences."
            )
        for phrase, classes in self.shared_names.items():
            lines.append(
                f"{phrase!r} stands for {' and '.join(map(repr, classes))}: its sentences count for all of them; spell "
                "the names differently if that is not meant."
            )
        if self.exclude_list and not self.excluded:
            lines.append(
                f"None of the {self.exclude_list} images to exclude is in the sentence file: check that both come from "
                "the same data set."
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Counts and the count of every class, for machines."""
        counts = {
            name: getattr(self, name)
            for name in (
                "read",
                "without_text",
                "excluded",
                "without_class",
                "over_image_limit",
                "over_class_limit",
                "kept",
                "template_sentences",
            )
        }
        classes = dict(zip(self.class_names, self.class_counts, strict=True))
        return {**counts, "labels_per_sentence": self.labels_per_sentence, "classes": classes}


def shortened(names: Sequence[str]) -> str:
    """Names in quotes, at most 20 of them, and how many more there are."""
    shown = ", ".join(map(repr, names[:_NAMED_AT_MOST]))
    return shown + (f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else "")


def _counted(names: Sequence[str], total: int) -> str:
    return f"{len(names)} of {total} classes ({shortened(names)})"
