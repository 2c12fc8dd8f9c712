"""The state of a tuning run on disk, from which it goes on as if it had never stopped."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.files import write_atomically
from tai_engine.tuning.config import differences
from tai_engine.tuning.negatives.strategies import MinedNegatives

NAME = "checkpoint.pt"
FORMAT = "tai-engine tuning checkpoint 1"


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.jsonl``.

    Attributes:
        epoch: from 1.
        steps: done since the beginning.
        loss: mean over the epoch's steps; of a batch it is the mean over its sentences, coarse and fine summed.
        learning_rate: of the epoch.
        held_out_loss: of held-out sentences at the end of the epoch; None without any.
        held_out_map: mAP of their merged scores, from 0 to 1.
        held_out_map_coarse: of the coarse scores.
        held_out_map_fine: of the fine ones.
        seconds: wall time of the epoch's steps.
        steps_per_second: their rate.
    """

    epoch: int
    steps: int
    loss: float
    learning_rate: float
    held_out_loss: float | None
    held_out_map: float | None
    held_out_map_coarse: float | None
    held_out_map_fine: float | None
    seconds: float
    steps_per_second: float


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        contexts: by name, as `PromptLearner.contexts` gives them.
        optimizer: its state dict.
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


def save_checkpoint(folder: Path, state: RunState, identity: Mapping[str, Any]) -> None:
    """Replace the checkpoint in ``folder``; it is whole or the old one.

    Args:
        folder: of the run.
        state: what to keep.
        identity: recipe and data; a checkpoint is gone on with under the same ones only.

    Raises:
        UserError: when the file system refuses.
    """
    content = {
        "format": FORMAT,
        "identity": json.dumps(dict(identity), sort_keys=True),
        "contexts": state.contexts,
        "optimizer": state.optimizer,
        "step": state.step,
        "loss_sum": state.loss_sum,
        "seconds": state.seconds,
        "history": [asdict(metrics) for metrics in state.history],
        "best_epoch": state.best_epoch,
        "best_contexts": state.best_contexts,
        "mined": None if state.mined is None else dict(vars(state.mined)),
        "finished": state.finished,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / NAME, buffer.getbuffer())


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> RunState | None:
    """The state that a run in ``folder`` left; None if there was none.

    Raises:
        UserError: if the file is damaged, or is of a run with another recipe or other data.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    advice = f"remove the folder {folder}, or choose another one with --run"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        old = json.loads(content.pop("identity"))
        content.pop("format")
        history = [EpochMetrics(**metrics) for metrics in content.pop("history")]
        mined = content.pop("mined")
        state = RunState(**content, history=history, mined=None if mined is None else MinedNegatives(**mined))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The checkpoint {path} is damaged ({reason}); {advice}.") from error
    # What JSON makes of tuples and the like is what was saved.
    changed = differences(old, json.loads(json.dumps(dict(identity))))
    if changed:
        shown = "; ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise UserError(
            f"The folder {folder} holds another run ({shown}); give the same options and sentences as before to go on "
            f"with it, {advice}."
        )
    return state
