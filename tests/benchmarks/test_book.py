"""The book says what the rows say, and one benchmark that fails takes no other along."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tai_benchmarks.book import ALL_SECONDS, PAGE, StepOutcome, book_steps, run_all, write_book
from tai_benchmarks.book_costs import costs
from tai_benchmarks.book_plots import scaling_plot, targets_plot
from tai_benchmarks.book_rows import newest_rows
from tai_benchmarks.book_targets import NOT_MEASURED, targets
from tai_benchmarks.machine import device_name, slug
from tai_benchmarks.protocol import BenchRow, record
from tai_engine.cli.bench import app

DEVICE = device_name(torch.device("cpu"))
FACTS = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "some CPU, AVX2, 2 threads",
    "commit": "abc",
    "load_average": 0.5,
}


def row(bench, case, value, unit="items/s", classes=0, ratio=1.0, baseline="other", candidate="tai", **extra):
    return BenchRow(bench, case, classes, candidate, baseline, value, unit, value, value, ratio, FACTS | extra)


TUNE = row("tune", "step/512-sentences", 0.9, "s/step", 80, 38.0, "published")
SCORE = row("score", "rn50-224/softmax/fp16", 20_000.0, "images/s", 80, 3.1, "published",
            share_of_gemm=0.91, dim=1024, rows_per_image=49)  # fmt: skip
HELP = row("shell", "help", 0.31, "s")
ENCODE = row("encode", "rn50-224/batch-32", 40.0, "images/s", ratio=3.5, baseline="open_clip",
             candidate="tai-coarse", gflops_per_picture=12.0)  # fmt: skip
FOLDER = row("folder", "rn50/256-photographs", 30.0, "images/s", ratio=3.9, baseline="clip-retrieval")
CURVE = [row("scaling", f"items/{n}", 1e4 / n, "pictures/s", point=n) for n in (1, 10, 100)]


def by_bench(*rows):
    return {one.bench: [one] for one in rows}


def test_targets_by_hand():
    found = {target.what: target for target in targets(by_bench(TUNE, SCORE, HELP, ENCODE))}
    tuning = found["a tuning step of 512 sentences, 80 words"]
    assert (tuning.found, tuning.reached, tuning.share) == ("38.0 times", True, 38 / 25)
    scoring = found["scoring with 80 words"]
    assert (scoring.found, scoring.reached) == (
        "3.1 times, 91 % of gemm",
        True,
    )  # without AMX the machine's rate counts
    assert found["scoring with 20 words"].found == NOT_MEASURED
    assert found["`tai --help`"].reached is False
    assert found["encoding with RN50 to CLIP's own vectors"].reached is False
    assert found["scoring on an H100"].reached is None


def test_with_amx_the_machines_rate_is_no_excuse():
    amx = replace(SCORE, extra=dict(SCORE.extra) | {"device": "Xeon, AMX, 2 threads"})
    (found,) = (t for t in targets(by_bench(amx)) if t.what == "scoring with 80 words")
    assert found.reached is False
    assert found.share == pytest.approx(3.1 / 8)


def test_costs_by_hand():
    whole = replace(ENCODE, candidate="tai", value=40.0)
    encode, score = costs(by_bench(whole, SCORE))
    assert encode.cpu_hours == pytest.approx(1e6 / 40 / 3600)
    assert encode.gpu_seconds == pytest.approx(1e6 * 12e9 / 494.5e12)
    # 50 rows of 1,024 fp16 numbers: at 80 words memory is the limit.
    assert score.gpu_seconds == pytest.approx(1e6 * 102_400 / 3.35e12)
    assert costs({}) == []


def test_of_each_benchmark_the_last_run(tmp_path: Path):
    old = row("cache", "gone", 1.0)
    new = replace(row("cache", "random-128", 2.0), extra=FACTS | {"date": "2026-02-01"})
    record([old, new], tmp_path, "here")
    record([HELP], tmp_path, "here")
    record([TUNE], tmp_path, "elsewhere")
    assert newest_rows(tmp_path, "here") == {"cache": [new], "shell": [HELP]}
    assert newest_rows(tmp_path, "nowhere") == {}


def test_plots_are_pictures_of_their_theme():
    found = [target for target in targets(by_bench(TUNE, HELP)) if target.share is not None]
    for theme, least, most in (("light", 200, 256), ("dark", 0, 60)):
        for data in (scaling_plot(CURVE, theme), targets_plot(found, theme)):
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.width > 300
                assert least <= picture.convert("L").getpixel((2, 2)) < most


def test_the_page_says_what_was_measured(tmp_path: Path):
    for rows in ([TUNE], [SCORE], [HELP], [FOLDER], CURVE):
        record(rows, tmp_path / "results", slug(DEVICE))
    text = write_book(tmp_path, [StepOutcome("tune", "done", 12.3), StepOutcome("cache", "failed with status 3", 1.0)])
    page = text.read_text(encoding="utf-8")
    assert text == tmp_path / PAGE
    assert "| cache | failed with status 3 | 1 |" in page
    assert "| 25 times | 38.0 times | reached | `tai bench tune --cases step` |" in page
    assert "| at most 0.3 s | 0.31 s | **missed** |" in page
    assert "never measured" in page
    assert "### tune, s/step: step/512-sentences, 80 classes" in page
    assert "`python -m tai_benchmarks.folder_contest`, 2026-01-02" in page
    assert "as whole commands do (below)" in page
    for name in ("scaling-light.png", "scaling-dark.png", "targets-light.png", "targets-dark.png"):
        assert name in page
        assert (tmp_path / name).is_file()
    assert "quick" not in page


def test_a_machine_without_rows_has_a_page_too(tmp_path: Path):
    page = write_book(tmp_path, []).read_text(encoding="utf-8")
    assert "clip-retrieval is **not measured** here" in page
    assert page.count(NOT_MEASURED) >= 11
    assert "A million pictures" not in page


def test_one_that_fails_takes_no_other_along(tmp_path: Path):
    done, pages = [], []

    def run(step):
        done.append(step.name)
        pages.append((tmp_path / PAGE).exists())
        return "failed with status 3" if step.name == "score" else "done"

    outcomes = run_all(tmp_path, quick=False, remark=lambda _: None, run=run)
    assert done == ["score", "tune", "encode", "cache", "cache memory", "corpus", "scaling", "shell"]
    assert pages == [False, *[True] * 7]  # written after each
    assert [outcome.outcome for outcome in outcomes] == ["failed with status 3", *["done"] * 7]
    assert "| score | failed with status 3 |" in (tmp_path / PAGE).read_text(encoding="utf-8")


def test_the_whole_is_bounded_whatever_its_parts_take(tmp_path: Path, monkeypatch):
    now, given = [1000.0], []
    monkeypatch.setattr("tai_benchmarks.book.time.monotonic", lambda: now[0])

    def run(step):
        given.append(step.seconds)
        now[0] += step.seconds + 200  # none of them stops when it is told to
        return "out of time"

    outcomes = run_all(tmp_path, quick=False, remark=lambda _: None, run=run)
    assert len(given) < len(outcomes) == 8
    assert sum(given) + 200 * (len(given) - 1) <= ALL_SECONDS
    assert outcomes[-1].outcome == "left out: no time was left"


@pytest.mark.parametrize("quick", [False, True])
def test_steps_fit_into_twenty_minutes_and_know_the_commands_options(tmp_path: Path, quick: bool):
    steps = book_steps(tmp_path, quick)
    assert sum(step.seconds for step in steps) <= ALL_SECONDS <= 20 * 60 - 15
    for step in steps:
        given = list(step.arguments[step.arguments.index("bench") + 1 :])
        outcome = CliRunner().invoke(app, [*given, "--help"])
        assert outcome.exit_code == 0
        for option in given:
            assert not option.startswith("--") or option in outcome.output
