"""What a user says of pictures reaches the source, and what the source says reaches the user."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from tai_engine.sources import SourceOptions
from tai_engine.tables import TableOptions


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def test_every_option_arrives(tai, tiny_model, tmp_path, monkeypatch):
    seen = []

    def stop(spec, options):
        seen.append((spec, options))
        raise KeyboardInterrupt

    monkeypatch.setattr("tai_engine.sources.open_source", stop)
    of_table = ("--column", "c", "--format", "csv", "--separator", "tab", "--no-header", "--encoding", "latin-1")
    more = ("--exclude", "a*", "--exclude", "b", "--allow", "file", *of_table)
    tai("cache", "images", "s", tmp_path / "x.zarr", *more, "--model", tiny_model)
    tai("cache", "images", "s", tmp_path / "x.zarr", "--model", tiny_model)
    table = TableOptions("csv", "\t", header=False, encoding="latin-1")
    assert seen == [("s", SourceOptions(("a*", "b"), "c", table, ("file",))), ("s", SourceOptions())]


def test_what_is_passed_over_is_said_and_stands_in_the_json(tai, tiny_model, tmp_path):
    photos = tmp_path / "photos"
    for name in ("a.png", "@eaDir/a.png/T.png", "raw/b.png"):
        picture(photos / name)
    (photos / "film.mp4").touch()
    outcome = tai("cache", "images", photos, tmp_path / "s", "--exclude", "raw", "--model", tiny_model, "--json")
    assert outcome.status == 0
    sentences = json.loads(outcome.stdout)["remarks"]
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "Passed over, being no pictures by their names",
        "Passed over, being folders of systems",
        "Passed over by --exclude",
    ]
    for sentence in sentences:
        assert sentence in outcome.stderr


def run(*arguments, **more):
    code = "from tai_engine.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, env=environment, check=False)


def test_names_that_no_terminal_can_show(tiny_model, tmp_path):
    folder = tmp_path / os.fsdecode(b"[/b]caf\xe9")
    picture(folder / os.fsdecode(b"[/b]\xff\n.png"))
    store = folder / os.fsdecode(b"[bold]\xe9.zarr")
    for more in ({}, {"PYTHONIOENCODING": "ascii"}):
        done = run("cache", "images", folder, store, "--model", str(tiny_model), **more)
        assert done.returncode == 0, done.stderr
        assert b"[bold]\\xe9.zarr" in done.stdout
    listed = run("info", store, "--json")
    assert listed.returncode == 0, listed.stderr
    json.loads(listed.stdout)


@pytest.mark.parametrize(("mistake", "said"), [("1 / 0", "ZeroDivisionError"), ("open_ended()", "EOFError")])
def test_a_mistake_of_ours_has_a_status_of_its_own(tmp_path, mistake, said):
    code = (
        "def open_ended(): raise EOFError\n"  # the parser of options takes it for an interruption
        f"import tai_engine.sources as s; s.open_source = lambda *_: {mistake}\n"
        f"import sys; sys.argv = ['tai', 'cache', 'images', 'x', {str(tmp_path / 's')!r}, '--model', 'demo']\n"
        "from tai_engine.cli.main import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3
    assert said in done.stderr
    assert "this is a mistake of the program, not of yours" in done.stderr
