"""``tai demo``: the whole way, from pictures and sentences to tags, on the embedded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.cli.cache import describe as describe_caching
from tai_engine.cli.cache import show
from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_json, print_table, progress_bar, results
from tai_engine.cli.tag import describe as describe_tagging
from tai_engine.cli.tune import show_steps
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.caching.report import CacheProgress
    from tai_engine.demo.walkthrough import DemoResult
    from tai_engine.tuning import StepProgress

SHOWN_PICTURES = 8
WITHIN_CHANCE = 0.01
"""A difference in mAP that other pictures may turn round."""


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that is made.")] = Path("demo-results"),
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="How many pictures to draw.")] = 80,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other pictures.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw pictures, tag them with COCO's 80 words, tune prompts on sentences, and show how right it all was."""
    from tai_engine.demo.walkthrough import run_demo

    check_place(out, folder=True)
    result = run_demo(out, pictures, seed, _Bars())
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
            yield show_steps(bar)


def _summary(result: DemoResult) -> dict[str, Any]:
    from tai_engine.demo import walkthrough

    learned, compared = result.learned, result.compared
    return {
        "pictures": len(result.entries),
        "map_zero_shot": result.zero_shot.mean,
        "map_untuned": compared[walkthrough.UNTUNED]["merged"],
        "map_tuned": compared[walkthrough.TUNED]["merged"],
        "map_zero_shot_own_names": compared[walkthrough.ZERO_SHOT_OWN]["merged"],
        "map_tuned_own_names": compared[walkthrough.TUNED_OWN]["merged"],
        "sentences": learned.result.training_sentences + learned.result.held_out_sentences,
        "steps": learned.result.steps,
        "seconds": result.seconds,
        "store": str(result.store),
        "tags": str(result.tagging.path),
        "contact_sheet": str(result.contact_sheet),
        "sentence_store": str(learned.sentence_store),
        "prompts": str(learned.prompts_path),
        "tuning": str(learned.folder),
        "prompts_own_names": str(result.learned_own_names.prompts_path),
    }


def _describe(result: DemoResult) -> None:
    """Some pictures with their tags, what was made, and how right the prompts are."""
    from tai_engine.demo.walkthrough import TUNED
    from tai_engine.tagging.scoring import SCORES
    from tai_engine.tuning.run_folder import CURVE, MINED

    learned, entries = result.learned, result.entries
    rows = [(e.picture.name, ", ".join(e.tags), ", ".join(sorted(e.truth))) for e in entries[:SHOWN_PICTURES]]
    print_table(f"The first {len(rows)} of {len(entries)} pictures", ("picture", "tags", "truth"), rows)
    _say(
        *describe_caching(result.caching, result.store, "pictures"),
        *describe_tagging(result.tagging),
        *describe_caching(learned.caching, learned.sentence_store, "sentences"),
        f"{learned.result.steps} steps on {learned.result.training_sentences:,} sentences, no picture seen -> "
        f"{learned.prompts_path}",
    )
    print_table(
        f"mAP % of {len(entries)} pictures, {len(result.zero_shot.per_class)} classes",
        ("prompts", *SCORES),
        [(name, *(round(100 * found[which], 1) for which in SCORES)) for name, found in result.compared.items()],
    )
    own_name, name = result.learned_own_names.vocabulary.names[0], result.vocabulary.names[0]
    _say(
        describe_change(result.zero_shot.mean, result.compared[TUNED]["merged"]),
        f'Own names are "{own_name}" for {name} and so on, which the model has never read: '
        "zero-shot prompts guess, and tuned ones have learned from sentences what the names mean.",
        "The drawings are of a style that the embedded model never saw.",
        f"To look at: {result.contact_sheet}, {learned.folder / CURVE}, {learned.folder / MINED}",
        f"All of it took {result.seconds:.1f} s.",
    )


def _say(*lines: str) -> None:
    for line in lines:
        results.print(line)


def describe_change(zero_shot: float, tuned: float) -> str:
    """What tuning did to the mAP of the pictures, and why there is no more to be had from this model."""
    change = 100 * (tuned - zero_shot)
    if abs(tuned - zero_shot) <= WITHIN_CHANCE:
        outcome = f"Tuned prompts are as good as zero-shot ones here ({change:+.1f} points)"
    else:
        outcome = (
            f"Tuned prompts are {'better' if change > 0 else 'worse'} than zero-shot ones here ({change:+.1f} points)"
        )
    return (
        f"{outcome}. The embedded model was trained with prompts for these very words, so that every wording means the "
        "same to it: sentences can lead contexts to where zero-shot prompts are, and hardly further."
    )
