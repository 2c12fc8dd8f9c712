"""``tai demo``: the whole way, from photographs and captions to tags, on the embedded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.cli.cache_output import describe as describe_caching
from tai_engine.cli.cache_output import show
from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_json, print_table, progress_bar, results
from tai_engine.cli.tag import describe as describe_tagging
from tai_engine.cli.tune_output import show_step
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.caching.report import CacheProgress
    from tai_engine.demo.walkthrough import DemoResult
    from tai_engine.evaluation.bootstrap import Interval
    from tai_engine.tuning import StepProgress

SHOWN_PHOTOGRAPHS = 8
CAPTIONS = 8000


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that is made.")] = Path("demo-results"),
    captions: Annotated[
        int, typer.Option("--captions", min=100, max=20_213, help="How many of the built-in captions to tune on.")
    ] = CAPTIONS,
    as_json: AsJson = False,
) -> None:
    """Tag photographs with everyday words, tune prompts on captions, and show how right it all is."""
    from tai_engine.demo.walkthrough import run_demo

    check_place(out, folder=True)
    result = run_demo(out, captions, _Bars())
    if as_json:
        print_json(_summary(result))
    else:
        _describe(result)


class _Bars:
    """A bar for each stage."""

    @contextmanager
    def caching(self, what: str, store: Path) -> Iterator[Callable[[CacheProgress], None]]:
        with progress_bar(f"Encoding {what}") as bar:
            yield show(bar, store)

    @contextmanager
    def tagging(self) -> Iterator[Callable[[int, int | None], None]]:
        with progress_bar("Tagging") as bar:
            yield bar.update

    @contextmanager
    def tuning(self) -> Iterator[Callable[[StepProgress], None]]:
        with progress_bar("Tuning") as bar:
            yield partial(show_step, bar)


def _summary(result: DemoResult) -> dict[str, Any]:
    learned = result.learned
    return {
        "photographs": len(result.photographs),
        "tags": str(result.tagging.path),
        "store": str(result.store),
        "contact_sheet": str(result.contact_sheet),
        "heatmaps": str(result.heatmaps),
        "report": result.page.page,
        "sentences": learned.result.training_sentences + learned.result.held_out_sentences,
        "steps": learned.result.steps,
        "prompts": str(learned.prompts),
        "tuning": str(learned.folder),
        "measured_on": len(learned.worth["merged"].per_class),
        "map": {
            which: {
                name: [value.value, value.low, value.high]
                for name, value in (("zero_shot", one.first), ("tuned", one.second), ("gain", one.difference))
            }
            for which, one in learned.worth.items()
        },
        "seconds": result.seconds,
    }


def _describe(result: DemoResult) -> None:
    """Some photographs with their tags, what was made, and how right prompts are."""
    learned = result.learned
    rows = [
        (one.path.name, ", ".join(f"{name} {100 * probability:.0f} %" for name, probability in one.tags))
        for one in result.photographs[:SHOWN_PHOTOGRAPHS]
    ]
    print_table(f"The first {len(rows)} of {len(result.photographs)} photographs", ("photograph", "tags"), rows)
    _say(
        "A tag is written where it is more likely there than not. Probabilities are reckoned from how often captions "
        "name a word and from 152 other photographs, without a label of any.",
        *describe_caching(result.caching, result.store, "photographs"),
        *describe_tagging(result.tagging),
        *describe_caching(learned.caching, str(learned.store), "captions"),
        f"{learned.result.steps} steps on {learned.result.training_sentences:,} sentences, no photograph seen -> "
        f"{learned.prompts}",
    )
    print_table(
        f"mAP % of COCO's words on 152 labelled photographs that neither the model nor the prompts have seen "
        f"({learned.classes} words occur), with 95 % intervals",
        ("score", "zero-shot", "tuned on captions", "gain"),
        [(which, *map(_percent, (one.first, one.second, one.difference))) for which, one in learned.worth.items()],
    )
    _say(
        describe_gain(learned.worth["merged"].difference),
        f"To look at: {result.contact_sheet}, {result.heatmaps}, {result.page.page}",
        f"All of it took {result.seconds:.1f} s.",
    )


def _say(*lines: str) -> None:
    for line in lines:
        results.print(line)


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def describe_gain(gain: Interval) -> str:
    """What tuning did to the mAP of merged scores, a share from 0 to 1, and how sure that is."""
    points = f"{100 * gain.value:+.1f} points, 95 % interval {100 * gain.low:.1f} to {100 * gain.high:.1f}"
    if not gain.is_clear_of_zero:
        return f"Tuned and zero-shot prompts cannot be told apart by these photographs ({points})."
    return f"Prompts tuned on captions are {'better' if gain.value > 0 else 'worse'} than zero-shot ones ({points})."
