"""What a run writes down: a checkpoint, figures for machines, a curve and lists for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tai_engine.files import write_atomically
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.tuning.checkpoint import EpochMetrics
from tai_engine.tuning.curve import draw_curve

METRICS, CURVE, PER_CLASS, MINED = "metrics.jsonl", "curve.png", "per_class.jsonl", "mined.txt"
LAST_GOOD = "last-good.safetensors"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file is replaced whole, and none is made before there is something to write.

    ``checkpoint.pt``, ``metrics.jsonl`` (a line an epoch), ``curve.png``, ``mined.txt`` (what the last refresh of
    negatives found), ``per_class.jsonl`` at the end, and ``last-good.safetensors`` if the loss went wrong.

    Attributes:
        path: the folder.
        identity: recipe and data of the run.
    """

    path: Path
    identity: Mapping[str, Any]

    def write_metrics(self, history: Sequence[EpochMetrics]) -> None:
        """``metrics.jsonl`` and ``curve.png``."""
        write_lines(self.path / METRICS, [asdict(metrics) for metrics in history])
        write_atomically(self.path / CURVE, draw_curve(history))

    def write_per_class(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """``per_class.jsonl``."""
        write_lines(self.path / PER_CLASS, rows)

    def write_mined(self, title: str, lines: Sequence[str]) -> None:
        """``mined.txt``."""
        write_atomically(self.path / MINED, "".join(f"{line}\n" for line in (title, "", *lines)))

    def write_last_good(self, prompts: PromptSet) -> Path:
        """``last-good.safetensors``; returns its path."""
        prompts.save(self.path / LAST_GOOD)
        return self.path / LAST_GOOD


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON objects, one a line."""
    write_atomically(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
