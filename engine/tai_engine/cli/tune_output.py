"""What ``tai tune`` says: how far it is, what came of it, as tables for people and a summary for machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tai_engine.cli.output import ProgressBar, print_table, results

if TYPE_CHECKING:
    from tai_engine.tuning import StepProgress, Trial, TuningConfig, TuningResult

WORST_CLASSES = 5


def show_trial(bar: ProgressBar, done: int, total: int, trial: Trial) -> None:
    """Draw how far the search for constants is."""
    bar.update(done, total, f"lr {trial.learning_rate:g}, temperature {trial.text_temperature:g}")


def print_trials(trials: Sequence[Trial]) -> None:
    """A table of the short runs that looked for constants."""
    print_table(
        "Held-out sentences after short runs",
        ("learning rate", "temperature", "mAP % merged", "coarse", "fine"),
        [(t.learning_rate, t.text_temperature, *map(_percent, (t.merged, t.coarse, t.fine))) for t in trials],
    )


def show_step(bar: ProgressBar, step: StepProgress) -> None:
    """Draw how far a run is."""
    note = f"epoch {step.epoch}, loss {step.loss:.4g}, {step.steps_per_second:.2f} steps/s"
    if step.held_out_map is not None:
        note += f", held-out mAP {100 * step.held_out_map:.1f} %"
    bar.update(step.step, step.steps, note)


def _percent(value: float | None) -> object:
    return "" if value is None else 100 * value


def summary(result: TuningResult, config: TuningConfig, out: Path, folder: Path) -> dict[str, Any]:
    """The outcome for machines."""
    last, constants = result.history[-1], result.prompts.constants
    assert constants is not None  # tuned prompts bring theirs
    return {
        "prompts": str(out),
        "run": str(folder),
        "classes": len(result.prompts.class_names),
        "training_sentences": result.training_sentences,
        "held_out_sentences": result.held_out_sentences,
        "epochs": len(result.history),
        "kept_epoch": result.epoch,
        "steps": result.steps,
        "loss": last.loss,
        "held_out_map": None if result.held_out is None else result.held_out.merged.mean,
        "held_out_loss": None if result.held_out is None else result.held_out.loss,
        "steps_per_second": last.steps_per_second,
        "seconds": result.seconds,
        "learning_rate": config.learning_rate,
        "text_temperature": config.text_temperature,
        "image_temperature": constants.image_temperature,
        "remarks": list(result.remarks),
    }


def describe(result: TuningResult, out: Path, folder: Path) -> None:
    """The epochs, the worst classes, and the outcome in a sentence or two."""
    print_table(
        "Tuning",
        ("epoch", "loss", "held-out loss", "mAP % merged", "coarse", "fine", "learning rate", "steps/s"),
        [
            (
                m.epoch,
                m.loss,
                "" if m.held_out_loss is None else m.held_out_loss,
                *map(_percent, (m.held_out_map, m.held_out_map_coarse, m.held_out_map_fine)),
                m.learning_rate,
                m.steps_per_second,
            )
            for m in result.history
        ],
    )
    judged = [row for row in result.per_class if row["ap_merged"] is not None]
    worst = sorted(judged, key=lambda row: float(str(row["ap_merged"])))[:WORST_CLASSES]
    if worst:
        names = ", ".join(f"{row['class']} {100 * float(str(row['ap_merged'])):.0f}" for row in worst)
        results.print(f"Lowest AP % on held-out sentences: {names}")
    results.print(
        f"{len(result.prompts.class_names)} classes tuned on {result.training_sentences:,} {result.trained_on} "
        f"({result.held_out_sentences:,} held out), {result.steps:,} steps, contexts of epoch {result.epoch} -> {out}"
    )
    constants = result.prompts.constants
    assert constants is not None  # tuned prompts bring theirs
    results.print(
        f"Pictures are tagged with the temperature {constants.image_temperature:g}; figures and curve: {folder}"
    )
