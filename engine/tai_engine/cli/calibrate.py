"""``tai calibrate``: what the scores of a store mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import (
    AsJson,
    Device,
    EncoderChoice,
    MergeDuplicates,
    Precision,
    VocabularyChoice,
    VocabularyColumn,
)
from tai_engine.cli.output import print_json, print_table, progress_bar, remarks, results
from tai_engine.cli.results_option import OR_RESULTS, prompts_of, results_at, store_at
from tai_engine.cli.tag import scoring_of, templates_of
from tai_engine.cli.truth_options import UnknownLabels
from tai_engine.errors import MANY, UserError

if TYPE_CHECKING:
    from tai_engine.annotating.calibrate_store import CalibrationResult
    from tai_engine.calibration.calibration_report import CalibrationOutcome
    from tai_engine.calibration.thresholds import Target

DEFAULT_PROMISES = ("precision=0.9", "precision=0.5", "precision=0.7", "precision=0.8", "precision=0.95")


def calibrate(
    store: Annotated[str, typer.Argument(help=f"The store of pictures that is tagged, {OR_RESULTS}.")],
    out: Annotated[Path, typer.Option("--out", help="The calibration, a JSON file.")],
    truth: Annotated[
        Path | None, typer.Option("--truth", help="What some of the pictures show, as for `tai evaluate`.")
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="The journal of a `tai review`; default that of a folder of `tai annotate`."),
    ] = None,
    sentences: Annotated[
        str | None, typer.Option("--sentences", help="A store of labelled sentences, where no picture is labelled.")
    ] = None,
    rates: Annotated[
        Path | None, typer.Option("--rates", help="A table of tag and rate: how frequent each is in the collection.")
    ] = None,
    vocabulary: Annotated[str | None, typer.Option("--vocabulary", help="The words, as for `tai tag`.")] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A saved prompt set in place of zero-shot.")] = None,
    templates: Annotated[list[str] | None, typer.Option("--template", help="As for `tai tag`.")] = None,
    promises: Annotated[
        list[str] | None,
        typer.Option("--promise", help="precision=0.9, recall=0.8 or f1=0.7; repeat for several."),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="How sure a promise has to be.")] = 0.9,
    together: Annotated[
        bool, typer.Option("--together", help="Promise it of all tags together: takes far fewer labels.")
    ] = False,
    which: Annotated[str | None, typer.Option("--score", help="As for `tai tag`.")] = None,
    pooling: Annotated[str | None, typer.Option("--pooling", help="As for `tai tag`.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="As for `tai tag`.")] = None,
    mix: Annotated[float | None, typer.Option("--mix", help="As for `tai tag`.")] = None,
    normalise: Annotated[str | None, typer.Option("--normalise", help="As for `tai tag`.")] = None,
    unknown_labels: UnknownLabels = "error",
    report: Annotated[Path | None, typer.Option("--report", help="A folder for a plot and a table per tag.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Find probabilities and per-tag thresholds, from labelled pictures, decisions, sentences or rates."""
    from tai_engine.annotating.calibrate_store import (
        Labelled,
        calibrate_by_labels,
        calibrate_by_rates,
        calibrate_by_sentences,
    )
    from tai_engine.annotating.calibration_files import read_rates, write_report
    from tai_engine.evaluation.truth import TruthOptions, load_truth
    from tai_engine.files import check_place
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.review.journal import read_decisions
    from tai_engine.store import FeatureStore

    results_folder = results_at(store)
    if results_folder is not None:
        if vocabulary is None and prompts is None:
            prompts = prompts_of(results_folder)
        if not any((truth, decisions, sentences, rates)) and results_folder.journal.exists():
            decisions = results_folder.journal
    sources = {"--truth": truth, "--decisions": decisions, "--sentences": sentences, "--rates": rates}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        raise UserError(
            "Say from what to calibrate, by one of --truth, --decisions, --sentences and --rates"
            + (f": {' and '.join(given)} were given." if given else ".")
        )
    check_place(out)
    if report is not None:
        check_place(report, folder=True)
    targets = [_target(text, confidence, together) for text in promises or DEFAULT_PROMISES]
    features = FeatureStore.open(store_at(store))
    if (prompts is None) == (vocabulary is None):
        raise UserError("Say what is tagged: --vocabulary (your words) or --prompts (a saved prompt set), one of them.")
    if prompts is not None:
        prompt_set = PromptSet.load(prompts)
    else:
        words = VocabularyChoice(str(vocabulary), merge_duplicates, vocabulary_column).load()
        encoder = EncoderChoice(None, "", device, precision).of(features)
        prompt_set = encoder.zero_shot(words, templates_of(templates, words))
    scoring = scoring_of(prompt_set, features.spec.has_fine, which, pooling, temperature, mix, normalise)
    with progress_bar("Scoring") as bar:
        if truth is not None:
            known = load_truth(truth, prompt_set.class_names, TruthOptions(unknown_labels))
            labelled = Labelled(known.ids, known.labels)
            result = calibrate_by_labels(features, prompt_set, scoring, labelled, targets, progress=bar.update)
        elif decisions is not None:
            labelled = Labelled.of_decisions(read_decisions(decisions), prompt_set.class_names)
            result = calibrate_by_labels(
                features, prompt_set, scoring, labelled, targets, made_from="decisions", progress=bar.update
            )
        elif sentences is not None:
            result = calibrate_by_sentences(
                FeatureStore.open(sentences), prompt_set, scoring, targets, progress=bar.update
            )
        else:
            assert rates is not None
            result = calibrate_by_rates(features, prompt_set, scoring, read_rates(rates), progress=bar.update)
    save(result, out)
    if report is not None:
        write_report(result, report)
    if as_json:
        print_json(_as_json(result, out))
    else:
        print_found(result, targets, out)


def save(result: CalibrationResult, out: Path) -> None:
    """Write the calibration."""
    result.calibration.save(out)


def print_found(result: CalibrationResult, targets: list[Target], out: Path) -> None:
    """What is promised for how many tags, and how good it is."""
    calibration = result.calibration
    tags = len(calibration.class_names)
    rows = [(f"{p.target.goal} {p.target.value:g}", p.kept, tags - p.kept) for p in calibration.promises]
    if rows:
        print_table("Promises", ("of at least", "kept for tags", "not written"), rows)
        thresholds = zip(calibration.class_names, calibration.promises[0].thresholds, strict=True)
        lost: dict[str, list[str]] = {}
        for name, threshold in thresholds:
            if threshold.score is None:
                lost.setdefault(threshold.reason, []).append(name)
        if lost:
            listed = [(_some(names), reason) for reason, names in lost.items()]
            print_table(f"No {rows[0][0]} can be promised for", ("tags", "because"), listed)
    for name, outcome in (("fitted on", result.fitted), ("held out", result.held_out)):
        if outcome is not None:
            results.print(f"{name}: {_said(outcome, targets)}", highlight=False)
    if result.missing:
        remarks.print(f"{result.missing:,} labelled pictures are not in the store and were left out.", highlight=False)
    if result.held_out is None and calibration.promises:
        remarks.print("Too few labelled pictures to hold some out: nothing says how good it is.", highlight=False)
    if calibration.made_from in ("sentences", "rates"):
        remarks.print("No labelled picture stands behind this: the probabilities are a rough guide.", highlight=False)
    results.print(f"{calibration.examples:,} examples -> {out}", highlight=False, markup=False)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MANY:,} more" if len(names) > MANY else ""
    return f"{', '.join(names[:MANY])}{more}"


def _said(outcome: CalibrationOutcome, targets: list[Target]) -> str:
    error, brier = outcome.reliability.error, outcome.brier
    text = f"{outcome.items:,} pictures, calibration error {error:.4f}, Brier score {brier:.4f}"
    if outcome.precision is not None and outcome.recall is not None and targets:
        first = targets[0]
        text += (
            f"; at the thresholds for {first.goal} {first.value:g}: precision {100 * outcome.precision:.1f} %, "
            f"recall {100 * outcome.recall:.1f} %"
        )
    return text


def _as_json(result: CalibrationResult, out: Path) -> dict[str, object]:
    def figures(outcome: CalibrationOutcome | None) -> dict[str, object] | None:
        if outcome is None:
            return None
        return {
            "pictures": outcome.items,
            "calibration_error": outcome.reliability.error,
            "brier": outcome.brier,
            "precision": outcome.precision,
            "recall": outcome.recall,
        }

    promises = [{"goal": p.target.goal, "value": p.target.value, "kept": p.kept} for p in result.calibration.promises]
    return {
        "out": str(out),
        "made_from": result.calibration.made_from,
        "examples": result.calibration.examples,
        "missing": result.missing,
        "promises": promises,
        "fitted": figures(result.fitted),
        "held_out": figures(result.held_out),
    }


def _target(text: str, confidence: float, together: bool) -> Target:
    from tai_engine.calibration.thresholds import Target

    goal, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise UserError(f"--promise is {text!r}; it is written like precision=0.9, recall=0.8 or f1=0.7.") from error
    return Target(goal.strip(), number, confidence, together)  # type: ignore[arg-type]  # checked where it is made
