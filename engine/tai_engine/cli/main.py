"""The ``tai`` command: parse, make a config, make one call."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from typing import Any

import typer

from tai_engine.cli import (
    annotate,
    bench,
    cache,
    calibrate,
    compare,
    demo,
    doctor,
    ensemble,
    evaluate,
    explain,
    export,
    info,
    reproduce,
    review,
    search,
    store,
    tag,
    tune,
)
from tai_engine.cli.finite_numbers import refuse_infinite
from tai_engine.cli.named_places import guard_places
from tai_engine.cli.options import INTERRUPTED, MISTAKE_OF_OURS, USAGE_OR_ENVIRONMENT
from tai_engine.cli.output import RemarkHandler, prepare_streams, remarks
from tai_engine.errors import UserError
from tai_engine.regular_files import printable

# What no code of this program is to blame for, wherever it comes up.
_OF_THE_SYSTEM = frozenset((
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ELOOP,
    errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT,
))  # fmt: skip

app = typer.Typer(
    name="tai",
    help="Tag large picture collections with your own words: features are computed once, everything else reads them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("annotate")(annotate.annotate)
app.add_typer(cache.app, name="cache")
app.command("tune")(tune.tune)
app.command("tag")(tag.tag)
app.command("ensemble")(ensemble.ensemble)
app.command("search")(search.search)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("calibrate")(calibrate.calibrate)
app.command("export")(export.export)
app.command("review")(review.review)
app.command("report")(review.report)
app.command("reproduce")(reproduce.reproduce)
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
    logging.basicConfig(handlers=[RemarkHandler()], level=logging.WARNING)


def main() -> None:
    """Run the command line and leave with its exit status.

    0 is done, 1 some items failed, 2 a mistake that the user can mend (one sentence on stderr), 3 a mistake of this
    program, with its traceback, 130 interrupted.
    """
    prepare_streams()
    sys.exit(_run("--debug" in sys.argv or os.environ.get("TAI_DEBUG") == "1"))


def _run(debug: bool) -> int:
    try:
        command = typer.main.get_command(app)
        refuse_infinite(command)
        guard_places(command)
        status = command(prog_name="tai", standalone_mode=False)
    except UserError as error:
        if debug:
            raise
        remarks.print(f"tai: {error}", style="red")
        return USAGE_OR_ENVIRONMENT
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # nobody interrupts by that here, whatever the parser of options says
            return say_mistake_of_ours()
        status = INTERRUPTED
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM or debug:
            return say_mistake_of_ours()
        what = printable(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "a file"
        remarks.print(
            f"tai: '{what}' cannot be used ({error.strerror}): check its name, its permissions and the disk, then run "
            "the same command again.",
            style="red",
        )
        return USAGE_OR_ENVIRONMENT
    except Exception as error:
        return say_usage_error(error) if is_usage_error(error) else say_mistake_of_ours()
    if status == INTERRUPTED:
        remarks.print("tai: interrupted; run the same command again to go on from here.")
    return status if isinstance(status, int) else 0


def say_mistake_of_ours() -> int:
    """Print the traceback of the present exception, and what to do with it; gives the exit status."""
    for line in traceback.format_exc().splitlines():
        remarks.print(line)
    remarks.print(
        "tai: this is a mistake of the program, not of yours; please report it with the lines above. What was written "
        "before it stands, and the same command goes on from there.",
        style="red",
    )
    return MISTAKE_OF_OURS


def is_usage_error(error: Exception) -> bool:
    """Whether it is one of the parser of options: their class has moved between versions of typer."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def say_usage_error(error: Any) -> int:
    """Say what is wrong with the options, and where they are explained; gives the exit status."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = context.command_path if context is not None else "tai"
        remarks.print(f"tai: {error.format_message().rstrip('.')}; see `{command} --help`.", style="red")
    return int(error.exit_code)
