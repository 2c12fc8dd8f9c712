"""The ``tai`` command: parse, make a config, make one call."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback

import typer

from tai_engine.cli import (
    bench,
    cache,
    calibrate,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    info,
    review,
    search,
    store,
    tag,
    tune,
)
from tai_engine.cli.options import INTERRUPTED, MISTAKE_OF_OURS, USAGE_OR_ENVIRONMENT
from tai_engine.cli.output import remarks
from tai_engine.errors import UserError

app = typer.Typer(
    name="tai",
    help="Tag large picture collections with your own words: features are computed once, everything else reads them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(cache.app, name="cache")
app.command("tune")(tune.tune)
app.command("tag")(tag.tag)
app.command("search")(search.search)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("export")(export.export)
app.command("review")(review.review)
app.command("report")(review.report)
app.command("info")(info.info)
app.command("verify")(store.verify)
app.command("compact")(store.compact)
app.command("doctor")(doctor.doctor)
app.add_typer(bench.app, name="bench")


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    if version:
        from tai_engine import __version__

        typer.echo(f"tai-engine {__version__}")
        raise typer.Exit
    context.obj = {"debug": debug}
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.WARNING)


def main() -> None:
    """Run the command line and leave with its exit status.

    0 is done, 1 some items failed, 2 a mistake that the user can mend (one sentence on stderr), 3 a mistake of this
    program, with its traceback, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what is not UTF-8, and terminals may know ASCII alone.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv or os.environ.get("TAI_DEBUG") == "1"
    try:
        app(standalone_mode=True)
    except UserError as error:
        if debug:
            raise
        remarks.print(f"tai: {error}", style="red", markup=False, highlight=False)
        sys.exit(USAGE_OR_ENVIRONMENT)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            remarks.print("tai: interrupted; run the same command again to go on from here.", markup=False)
        raise
    except Exception:
        traceback.print_exc()
        remarks.print(
            "tai: this is a mistake of the program, not of yours; please report it with the lines above. What was "
            "written before it stands, and the same command goes on from there.",
            style="red",
            markup=False,
            highlight=False,
        )
        sys.exit(MISTAKE_OF_OURS)
