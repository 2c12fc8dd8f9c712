"""``tai bench``: measurements of this machine, side by side with the published code and the fastest torch.

A new benchmark is a function here with its own options and ``@app.command``; ``_report`` does the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import SOME_ITEMS_FAILED, comma_separated
from tai_engine.cli.output import print_narrow_table, remarks
from tai_engine.cli.output import results as printed
from tai_engine.errors import UserError
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_benchmarks.protocol import BenchRow, Columns

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Quick = Annotated[bool, typer.Option("--quick", help="Within a minute: fewer and smaller cases. Not recorded.")]
Rounds = Annotated[
    int, typer.Option("--rounds", min=0, help="Samples of each candidate; 0 means 15, or 5 with --quick.")
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="torch's CPU threads; 0 leaves them as they are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a row on stdout instead of a table.")]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="Record the rows in this folder, newer ones replacing older ones. A full run in a checkout records in "
        "its benchmarks/results.",
    ),
]
NoRecord = Annotated[bool, typer.Option("--no-record", help="Record nothing.")]


@app.command("score")
def score(
    cases: Annotated[str, typer.Option(help="Comma-separated: rn50-224,rn50-448,vit-b16-224,vit-b16-448.")] = "",
    classes: Annotated[str, typer.Option(help="Comma-separated numbers of classes, e.g. 20,80,4585.")] = "",
    pooling: Annotated[str, typer.Option(help="Comma-separated: softmax,max.")] = "",
    rows: Annotated[str, typer.Option(help="Comma-separated row dtypes: fp32,bf16,fp16,int8.")] = "",
    rounds: Rounds = 0,
    device: Device = "auto",
    threads: Threads = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """Scoring cached features: images a second, share of bandwidth and of matrix-product rate, memory.

    Every candidate is checked against fp64 before it is timed. Ratios above 1 mean better than the baseline.
    """
    _set_threads(threads)
    wanted = {
        "cases": comma_separated(cases),
        "classes": _numbers("--classes", classes),
        "poolings": comma_separated(pooling),
        "row_dtypes": comma_separated(rows),
        "rounds": rounds,
        "device": device,
    }
    _measure("score", wanted, quick, as_json, results, no_record)


@app.command("tune")
def tune(
    cases: Annotated[str, typer.Option(help="Comma-separated: step,mining,memory.")] = "",
    classes: Annotated[int, typer.Option(min=0, help="Of the step and of mining; default 80.")] = 0,
    sentences: Annotated[int, typer.Option(min=0, help="Of a step's batch; default 512.")] = 0,
    rounds: Annotated[
        int, typer.Option(min=0, help="Samples of each step; default 5, for the published one takes half a minute.")
    ] = 0,
    device: Device = "cpu",
    threads: Threads = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """Prompt tuning: seconds a step and a refresh of hard negatives, memory of thousands of classes.

    Loss and gradients are checked against the published formulation first. Ratios above 1 mean better than the
    baseline. A quick run takes small batches, where there is less to gain.
    """
    _set_threads(threads)
    wanted = {"cases": comma_separated(cases), "classes": classes, "sentences": sentences, "rounds": rounds}
    _measure("tune", wanted | {"device": device}, quick, as_json, results, no_record)


@app.command("encode")
def encode(
    cases: Annotated[str, typer.Option(help="Comma-separated: rn50-224,vit-b32-224,vit-b16-224,photos.")] = "",
    batch: Annotated[int, typer.Option(min=0, help="Pictures of one call; default 32.")] = 0,
    rounds: Rounds = 0,
    device: Device = "auto",
    threads: Threads = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """Encoding pictures: images a second beside the plain loop over open_clip, on the same batch and weights.

    Features are held against the exact ones first. Ratios above 1 mean better than the baseline. Pictures of the last
    case are the photos in the folder that TAI_DATA names, or drawn ones, decoding included.
    """
    _set_threads(threads)
    wanted = {"cases": comma_separated(cases), "batch": batch, "rounds": rounds, "device": device}
    _measure("encode", wanted, quick, as_json, results, no_record)


@app.command("cache")
def cache(
    cases: Annotated[str, typer.Option(help="Comma-separated: random-128,sequential,re-tag,memory.")] = "",
    items: Annotated[int, typer.Option(min=0, help="Of the store, 100 KB each in the temporary folder.")] = 0,
    classes: Annotated[int, typer.Option(min=0, help="Of the vocabulary to tag with; default 80.")] = 0,
    rounds: Rounds = 0,
    threads: Threads = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """The cache on the CPU: reads against zarr-python and the raw files, tagging against encoding again, memory.

    What is read is held against zarr-python first, bit by bit. Ratios above 1 mean better than the baseline. Pictures
    are the photos in the folder that TAI_DATA names, or drawn ones.
    """
    _set_threads(threads)
    wanted = {"cases": comma_separated(cases), "items": items, "classes": classes, "rounds": rounds}
    _measure("cache", wanted, quick, as_json, results, no_record)


@app.command("corpus")
def corpus(
    cases: Annotated[str, typer.Option(help="Comma-separated kinds of file: text,jsonl,coco-json.")] = "",
    classes: Annotated[
        str, typer.Option(help="Comma-separated numbers of classes; 80 are COCO's, others are made up.")
    ] = "",
    sentences: Annotated[int, typer.Option(min=0, help="In the generated file; default 20,000.")] = 0,
    file: Annotated[
        Path | None, typer.Option("--file", help="Real sentences, one a line, instead of generated ones.")
    ] = None,
    rounds: Rounds = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """Labelling sentences with the classes that they name: sentences a second, from the file to the labels.

    The published look-up, one name after another, is the baseline; both must give the same labels first.
    """
    wanted = {
        "cases": comma_separated(cases),
        "classes": _numbers("--classes", classes),
        "sentences": sentences,
        "file": file,
        "rounds": rounds,
    }
    _measure("corpus", wanted, quick, as_json, results, no_record)


@app.command("scaling")
def scaling(
    cases: Annotated[str, typer.Option(help="Comma-separated: items,classes,patches,sentences.")] = "",
    rounds: Rounds = 0,
    threads: Threads = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """How rates change with the number of pictures, words, patches and sentences, on the CPU.

    A ratio of 1 means that one of many costs what one of the first point's few does.
    """
    _set_threads(threads)
    _measure("scaling", {"cases": comma_separated(cases), "rounds": rounds}, quick, as_json, results, no_record)


@app.command("shell")
def shell(
    cases: Annotated[str, typer.Option(help="Comma-separated: help,tag.")] = "",
    pictures: Annotated[int, typer.Option(min=0, help="In the store that is tagged; default 1,000.")] = 0,
    rounds: Rounds = 0,
    quick: Quick = False,
    as_json: AsJson = False,
    results: Results = None,
    no_record: NoRecord = False,
) -> None:
    """Whole commands as a user waits for them: `tai --help`, and `tai tag` with and without kept class vectors."""
    wanted = {"cases": comma_separated(cases), "pictures": pictures, "rounds": rounds}
    _measure("shell", wanted, quick, as_json, results, no_record)


@app.command("all")
def all_(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The folder of the page, its plots and rows. A full run in a checkout has its benchmarks."
        ),
    ] = None,
    only_write: Annotated[
        bool, typer.Option("--only-write", help="Measure nothing: write the page from the rows that are there.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small forms of all, to try it out; needs --out.")] = False,
) -> None:
    """Run every benchmark within twenty minutes, each within its own time, and write the book: README.md and plots.

    Nothing else should run meanwhile. Rows of a benchmark that failed are those of the run before.
    """
    from tai_benchmarks.book import run_all, write_book
    from tai_benchmarks.protocol import checkout_results

    checkout = None if quick else checkout_results()
    folder = out or (None if checkout is None else checkout.parent)
    if folder is None:
        raise UserError("Name the folder of the book with --out: only a full run in a checkout has one of its own.")
    check_place(folder, folder=True)
    outcomes = [] if only_write else run_all(folder, quick=quick, remark=remarks.print)
    printed.print(str(write_book(folder, outcomes, quick)))
    if any(outcome.outcome != "done" for outcome in outcomes):
        raise typer.Exit(SOME_ITEMS_FAILED)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in comma_separated(text))
    except ValueError as error:
        raise UserError(f"The value of {option} is {text!r}; give whole numbers separated by commas.") from error


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _measure(
    name: str, wanted: Mapping[str, object], quick: bool, as_json: bool, results: Path | None, no_record: bool
) -> None:
    """Run a benchmark with what was asked for (empty values were not), print it and record it.

    Raises:
        UserError: for a package that the benchmark needs and that is not installed.
    """
    try:
        bench = importlib.import_module(f"tai_benchmarks.bench_{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("tai_"):
            raise
        raise UserError(f"tai bench {name} needs {package}, which is not installed here; install it.") from error
    from tai_benchmarks.protocol import checkout_results

    config = bench.configure(quick=quick, **{name: value for name, value in wanted.items() if value})
    if no_record and results is not None:
        raise UserError("--no-record records nothing: leave it out, or --results.")
    folder = None if no_record else results or (None if quick else checkout_results())
    if folder is not None:
        check_place(folder, folder=True)
    _report(bench.run(config, remarks.print), as_json, folder, bench.TABLE)


def _report(rows: Iterable[BenchRow], as_json: bool, folder: Path | None, columns: Columns) -> None:
    """Print rows as they come (JSON) or as tables at the end, and record what was measured.

    A run that is cut short or fails half-way has printed, and records, the rows that it finished.
    """
    from tai_benchmarks.machine import slug
    from tai_benchmarks.protocol import json_line, record
    from tai_benchmarks.tables import tables

    done: list[BenchRow] = []
    try:
        for row in rows:
            done.append(row)
            if as_json:
                typer.echo(json_line(row.as_dict()), nl=False)
    finally:
        if not as_json:
            for table in tables(done, columns):
                print_narrow_table(*table)
        for bench in dict.fromkeys(row.bench for row in done):
            own = [row for row in done if row.bench == bench]
            if folder is not None:
                remarks.print(f"recorded in {record(own, folder, slug(str(own[0].extra['device'])))}")
