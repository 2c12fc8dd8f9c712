"""No option takes what is no number."""

import math
import sys

import pytest
import typer

from tai_engine.cli.finite_numbers import refuse_infinite
from tai_engine.cli.main import app, main


def options(command, path=""):
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, f"{path} {name}")
    yield from ((f"{path} {max(p.opts, key=len)}", p) for p in command.params if p.name != "help")


def test_every_option_that_is_a_number_is_a_finite_one():
    command = typer.main.get_command(app)
    refuse_infinite(command)
    found = dict(options(command))
    assert {" tag --threshold", " tune --lr", " cache images --timeout", " calibrate --confidence"} <= set(found)
    for name, parameter in found.items():
        assert parameter.callback(None, parameter, 0.5) == 0.5
        assert parameter.callback(None, parameter, None) is None
        assert parameter.callback(None, parameter, ["nan"]) == ["nan"]
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=rf"^{name.split()[-1]} is -?(nan|inf); give a number\.$"):
                parameter.callback(None, parameter, value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_the_command_says_so(monkeypatch, capsys, value):
    monkeypatch.setattr(sys, "argv", ["tai", "tag", "s", "--vocabulary", "v", "--out", "t.csv", f"--threshold={value}"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "--threshold is" in capsys.readouterr().err
