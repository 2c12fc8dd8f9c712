"""``tai verify``, ``tai compact``: looking after a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import SOME_ITEMS_FAILED, AsJson
from tai_engine.cli.output import print_json, print_table, progress_bar, results
from tai_engine.cli.results_option import OR_RESULTS, store_at
from tai_engine.files import human_bytes

if TYPE_CHECKING:
    from tai_engine.store.upkeep.verify import VerifyReport

Store = Annotated[str, typer.Argument(help=f"A store, its folder or address, {OR_RESULTS}.")]

_SHOWN = 50  # problems and leftovers; --json gives all of them


def verify(
    store: Store,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is wrong, so that `tai cache` can make the store whole again.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the vectors, only measure their files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a store: counts, checksums, lengths of vectors, ids. Exit status 1 if something is wrong and stays so."""
    from tai_engine.store.upkeep.repair import repair_store
    from tai_engine.store.upkeep.verify import verify_store

    store = store_at(store)
    with progress_bar("Repairing" if repair else "Verifying") as bar:
        look = repair_store if repair else verify_store
        report = look(store, deep=not quick, progress=bar.update)
    if as_json:
        print_json(report.as_dict())
    else:
        if report.problems:
            rows = [
                ("" if p.group is None else p.group, p.kind, p.file, p.detail, p.mended or "")
                for p in report.problems[:_SHOWN]
            ]
            print_table("", ("group", "problem", "file", "found", "done about it"), rows)
        for name in report.leftovers[:_SHOWN]:
            _say(f"{'removed' if report.removed_leftovers else 'left over'}: {name}")
        hidden = max(0, len(report.problems) - _SHOWN) + max(0, len(report.leftovers) - _SHOWN)
        if hidden:
            _say(f"{hidden:,} more; --json lists all.")
        _say(_verdict(report, store, repair))
    raise typer.Exit(0 if report.is_sound else SOME_ITEMS_FAILED)


def _verdict(report: VerifyReport, store: str, repaired: bool) -> str:
    from tai_engine.store.upkeep.repair import TAKEN_OUT

    how = "" if report.is_deep else " (vectors were not read)"
    holds = (
        f"{_count(report.groups, 'group')}{how}: {report.done:,} items done, {report.failed:,} failed, "
        f"{report.deleted:,} deleted, {human_bytes(report.bytes)}"
    )
    if not report.problems:
        left = ""
        if report.leftovers and not report.removed_leftovers:
            files = _count(len(report.leftovers), "file")
            left = f" Killed writers left {files}, which do no harm; --repair removes them."
        being = (
            f" It is being written by {report.writer}; what that one is about was not looked at."
            if report.writer
            else ""
        )
        return f"{holds}. The store is sound.{left}{being}"
    count = _count(len(report.problems), "problem")
    if not report.is_sound and repaired:
        worst = sum(not problem.mended for problem in report.problems)
        return f"{holds}. {count}, {worst:,} of which cannot be mended: copy the whole store again or make it anew."
    if not report.is_sound:
        return f"{holds}. {count}; run `tai verify {store} --repair` to mend the store."
    lost = {problem.group for problem in report.problems if problem.mended == TAKEN_OUT}
    again = (
        f" Run the same `tai cache` command again to redo the items of {_count(len(lost), 'group')}." if lost else ""
    )
    return f"{holds}. {count}, mended.{again}"


def compact(store: Store, as_json: AsJson = False) -> None:
    """Give back the place of deleted items, and fill groups that are not full."""
    from tai_engine.store.upkeep.compact import compact_store

    store = store_at(store)
    with progress_bar("Compacting") as bar:
        report = compact_store(store, progress=bar.update)
    if as_json:
        print_json(report.as_dict())
    elif report.groups_before == report.groups_after and not report.dropped:
        _say(
            f"There is nothing to give back: {_count(report.items, 'item')} in {_count(report.groups_after, 'group')}."
        )
    else:
        _say(
            f"{human_bytes(report.freed_bytes)} given back: {_count(report.dropped, 'deleted item')} gone, "
            f"{_count(report.items, 'item')} kept, in {_count(report.groups_after, 'group')} instead of "
            f"{report.groups_before:,}."
        )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _say(text: str) -> None:
    results.print(text)
