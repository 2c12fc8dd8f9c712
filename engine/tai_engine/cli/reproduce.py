"""``tai reproduce``: a published figure with one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import AsJson, Device
from tai_engine.cli.output import print_json, print_table, progress_bar, remarks, results
from tai_engine.errors import UserError
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.reproducing.reproduction import Reproduction


def reproduce(
    name: Annotated[str | None, typer.Argument(help="A protocol, see --list.")] = None,
    data: Annotated[
        Path, typer.Option("--data", help="The folder of VOCdevkit, COCO, NUSWIDE and OpenImages, as published.")
    ] = Path("data"),
    out: Annotated[
        Path | None, typer.Option("--out", help="Where everything is kept; default reproduced/NAME.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Weights from elsewhere, such as local-dir:FOLDER.")
    ] = None,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="Try it on a generated miniature of the data with the embedded model.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the protocols and their published figures.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Reproduce a published figure: prepare, cache, tune, tag, evaluate; run it again after a stop to go on."""
    from tai_engine.reproducing.miniatures import miniature_of, write_miniature
    from tai_engine.reproducing.reproduction import reproduce as run
    from tai_engine.reproducing.row_protocol import load_protocol

    if show:
        _list(as_json)
        return
    if name is None:
        raise UserError("Name a protocol; `tai reproduce --list` has them.")
    protocol = load_protocol(name)
    folder = out or Path("reproduced", f"{name}-miniature" if miniature else name)
    check_place(folder, folder=True)
    if miniature:
        if model is not None:
            raise UserError("--miniature has a model of its own: leave --model out.")
        data = folder / "data"
        write_miniature(protocol, data)
        protocol = miniature_of(protocol, data)
    elif model is not None:
        protocol = replace(protocol, model=replace(protocol.model, name=model, pretrained=""))
    with progress_bar("Reproducing") as bar:
        result = run(
            protocol, data, folder, device=device, progress=lambda what, done, total: bar.update(done, total, what)
        )
    if as_json:
        print_json(result.as_dict())
    else:
        _describe(result, folder)
    for remark in result.remarks:
        remarks.print(remark)


def _list(as_json: bool) -> None:
    from tai_engine.reproducing.row_protocol import load_protocol, protocol_names

    found = [load_protocol(name) for name in protocol_names()]
    if as_json:
        print_json(
            [
                {"name": p.name, "title": p.title, "published": p.published.map, "source": p.published.source}
                for p in found
            ]
        )
    else:
        rows = [(p.name, p.title, p.published.map, p.published.source) for p in found]
        print_table("", ("name", "what", "published mAP %", "source"), rows)


def _describe(result: Reproduction, folder: Path) -> None:
    groups = [group.name for group in result.seeds[0].groups]
    print_table(
        result.protocol,
        ("seed", "mAP %", *(f"{name} %" for name in groups), "held-out sentences mAP %"),
        [
            (
                one.seed,
                100 * one.map,
                *(100 * group.mean for group in one.groups),
                "" if one.held_out_map is None else 100 * one.held_out_map,
            )
            for one in result.seeds
        ],
    )
    ours, low, high = (100 * x for x in (result.map, result.interval.low, result.interval.high))
    results.print(
        f"Ours {ours:.2f} % (seed {result.seeds[0].seed}: {low:.2f} to {high:.2f} with "
        f"{100 * result.interval.confidence:.0f} % confidence), published {result.published:.2f} % ({result.source})"
    )
    results.print(f"{result.tested}; {result.classes} classes, {result.sentences:,} sentences")
    which = f"Protocol {result.protocol}, version {result.version}, SHA-256 {result.digest[:16]}"
    results.print(f"{which} -> {folder / 'result.json'}")
