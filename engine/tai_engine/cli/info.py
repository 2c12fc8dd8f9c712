"""``tai info``: what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_fields, print_json, print_table
from tai_engine.cli.results_option import OR_RESULTS, store_at
from tai_engine.files import human_bytes


def info(
    store: Annotated[str, typer.Argument(help=f"A store, its folder or address, {OR_RESULTS}.")],
    failed: Annotated[bool, typer.Option("--failed", help="List every failed item with its reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a store holds, which model and recipe made it, and what failed."""
    from tai_engine.store import FeatureStore

    store = store_at(store)
    features = FeatureStore.open(store)
    if failed:
        entries = ({"id": e.id, "reason": e.reason} for e in features.ledger() if e.status == "failed")
        if as_json:
            print_json(list(entries))
        else:
            for entry in entries:
                print_fields(entry["id"] or "", entry["reason"] or "")
        return
    counts = features.counts()
    facts: dict[str, object] = {
        "path": str(store),
        "kind": features.spec.kind,
        **counts,
        "bytes": features.nbytes,
        "dim": features.spec.dim,
        "row_dtype": features.spec.row_dtype,
        "fine_features": features.spec.has_fine,
        "space_key": features.spec.space_key,
        "recipe_key": features.spec.recipe_key,
        **{f"provenance.{key}": value for key, value in sorted(features.spec.provenance.items())},
    }
    if as_json:
        print_json(facts)
    else:
        facts["bytes"] = human_bytes(features.nbytes)
        print_table("", ("", "value"), [(name, str(value)) for name, value in facts.items()])
