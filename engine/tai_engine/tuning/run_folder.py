"""What a run writes down: its state, from which it goes on as if it had never stopped, and figures and lists."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tai_engine.errors import ItemError, UserError, reason_of
from tai_engine.files import write_atomically
from tai_engine.json_documents import parse_json
from tai_engine.regular_files import check_size, open_regular
from tai_engine.tuning.config import differences
from tai_engine.tuning.epoch_metrics import EpochMetrics, draw_curve
from tai_engine.tuning.negatives.strategies import MinedNegatives

CHECKPOINT, METRICS, CURVE, PER_CLASS = "checkpoint.pt", "metrics.jsonl", "curve.png", "per_class.jsonl"
MINED, LAST_GOOD = "mined.txt", "last-good.safetensors"
FORMAT = "tai-engine tuning checkpoint 1"
_OTHER_BYTES = 16 << 20
_DAMAGE = (
    *(ItemError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError),
    pickle.UnpicklingError,
)


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        contexts: by name, as `ContextLearner.contexts` gives them.
        optimizer: its state dict; of one that was loaded only the momentum.
        step: steps done since the beginning.
        loss_sum: of the steps of the present epoch.
        seconds: of the steps of the present epoch.
        history: of the finished epochs.
        best_epoch: the one with the best held-out mAP, from 1; 0 before there is any.
        best_contexts: those at its end.
        mined: of the last refresh.
        finished: whether there is nothing left to do.
    """

    contexts: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_contexts: dict[str, Tensor] = field(default_factory=dict)
    mined: MinedNegatives | None = None
    finished: bool = False


@dataclass(frozen=True)
class RunSizes:
    """What the tensors of a run's state have to fit.

    Attributes:
        shapes: of everything that learns, by name, in the order of the optimizer.
        n_classes: C.
        n_sentences: those that train.
        per_class: negatives that are mined for a class at most.
    """

    shapes: Mapping[str, tuple[int, ...]]
    n_classes: int
    n_sentences: int
    per_class: int

    @property
    def most_bytes(self) -> int:
        """Of a checkpoint: contexts, the best ones and their momentum in fp32, what is mined, and the figures."""
        return (
            3 * 4 * sum(map(math.prod, self.shapes.values()))
            + self.n_classes * (12 * self.per_class + 32)
            + _OTHER_BYTES
        )


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file is replaced whole, and none is made before there is something to write.

    ``checkpoint.pt``, ``metrics.jsonl`` (a line an epoch), ``curve.png``, ``mined.txt`` (what the last refresh of
    negatives found), ``per_class.jsonl`` at the end, and ``last-good.safetensors`` if the loss went wrong.

    Attributes:
        path: the folder.
        identity: recipe and data of the run; a checkpoint is gone on with under the same ones only.
    """

    path: Path
    identity: Mapping[str, Any]

    def save(self, state: RunState) -> None:
        """Replace the checkpoint; it is whole or the old one.

        Raises:
            UserError: when the file system refuses.
        """
        content = {
            **vars(state),
            "format": FORMAT,
            "identity": json.dumps(dict(self.identity), sort_keys=True),
            "history": [asdict(metrics) for metrics in state.history],
            "mined": None if state.mined is None else dict(vars(state.mined)),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.path / CHECKPOINT, buffer.getbuffer())

    def load(self, sizes: RunSizes) -> RunState | None:
        """The state that a run left here; None if there was none.

        Args:
            sizes: of this run; a state that does not fit is damage.

        Raises:
            UserError: if the checkpoint is damaged, or is of a run with another recipe or other data.
        """
        path = self.path / CHECKPOINT
        if not os.path.lexists(path):
            return None
        advice = f"remove the folder {self.path}, or choose another one with --run"
        try:
            with open_regular(path) as file:
                check_size(os.fstat(file.fileno()).st_size, sizes.most_bytes)
                content = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(
                    f"its format is {content.get('format')!r}" if isinstance(content, dict) else "it is no table"
                )
            old = parse_json(content["identity"])
            # What JSON makes of tuples and the like is what was saved.
            changed = differences(old, parse_json(json.dumps(dict(self.identity))))
            state = None if changed else _checked_state(content, sizes)
        except _DAMAGE as error:
            raise UserError(f"The checkpoint {path} is damaged ({reason_of(error)}); {advice}.") from error
        if state is None:
            shown = "; ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise UserError(
                f"The folder {self.path} holds another run ({shown}); give the same options and sentences as before to "
                f"go on with it, {advice}."
            )
        return state

    def write_metrics(self, history: Sequence[EpochMetrics]) -> None:
        """``metrics.jsonl`` and ``curve.png``, which change with an epoch, not with every checkpoint."""
        self.write_lines(METRICS, [asdict(metrics) for metrics in history])
        write_atomically(self.path / CURVE, draw_curve(history))

    def write_lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A file of JSON objects, one a line."""
        write_atomically(self.path / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _checked_state(content: dict[str, Any], sizes: RunSizes) -> RunState:
    """The state in a checkpoint, all of whose values are such as a run of these sizes leaves.

    Raises:
        ValueError: saying what is not.
    """
    history = [EpochMetrics(**metrics) for metrics in content["history"]]
    if not all(_are_numbers(asdict(metrics)) for metrics in history):
        raise ValueError("a figure of its history is no number")
    if not _are_numbers({name: content[name] for name in ("step", "loss_sum", "seconds", "best_epoch")}):
        raise ValueError("its counters are no numbers")
    step, best_epoch = content["step"], content["best_epoch"]
    if not isinstance(step, int) or step < 0 or not isinstance(best_epoch, int) or not 0 <= best_epoch <= len(history):
        raise ValueError("its counters do not fit its history")
    if not isinstance(content["finished"], bool):
        raise ValueError("it does not say whether the run is finished")
    momentum = content["optimizer"]["state"]
    names = list(sizes.shapes)
    if not set(momentum) <= set(range(len(names))) or any(
        set(entry) - {"momentum_buffer"} for entry in momentum.values()
    ):
        raise ValueError("its momentum is of another optimizer")
    buffers = {names[index]: rows for index, entry in momentum.items() for rows in entry.values() if rows is not None}
    contexts, best_contexts = content["contexts"], content["best_contexts"]
    if set(contexts) != set(names) or set(best_contexts) != (set(names) if best_epoch else set()):
        raise ValueError(f"its contexts are not {' and '.join(names)}")
    for name, rows in (*contexts.items(), *best_contexts.items(), *buffers.items()):
        shape = sizes.shapes[name]
        if not isinstance(rows, Tensor) or rows.dtype != torch.float32 or tuple(rows.shape) != shape:
            raise ValueError(f"its tensor {name!r} is not of the shape {shape} in fp32")
        if not bool(rows.isfinite().all()):
            raise ValueError(f"its tensor {name!r} holds something that is no number")
    return RunState(
        contexts=contexts,
        optimizer={"state": momentum},
        step=step,
        loss_sum=float(content["loss_sum"]),
        seconds=float(content["seconds"]),
        history=history,
        best_epoch=best_epoch,
        best_contexts=best_contexts,
        mined=None if content["mined"] is None else _checked_negatives(MinedNegatives(**content["mined"]), sizes),
        finished=content["finished"],
    )


def _checked_negatives(mined: MinedNegatives, sizes: RunSizes) -> MinedNegatives:
    offsets, sentences, similarities, n_random = vars(mined).values()
    kinds = [(rows.dtype, rows.ndim) for rows in (offsets, sentences, similarities, n_random)]
    whole, fine = (torch.int64, 1), (torch.float32, 1)
    if kinds != [whole, whole, fine, whole] or len(offsets) != sizes.n_classes + 1 or len(n_random) != sizes.n_classes:
        raise ValueError("its mined sentences are of another form")
    if (
        int(offsets[0])
        or bool((offsets.diff() < 0).any())
        or not int(offsets[-1]) == len(sentences) == len(similarities)
    ):
        raise ValueError("its mined sentences do not fit their classes")
    if len(sentences) and not 0 <= int(sentences.min()) <= int(sentences.max()) < sizes.n_sentences:
        raise ValueError("its mined sentences are none of this store")
    return mined


def _are_numbers(values: Mapping[str, Any]) -> bool:
    """Whether all are finite numbers, or None where nothing was measured."""
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value))
        for value in values.values()
    )
