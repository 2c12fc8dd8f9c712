"""``tai export``: a file of tags, with what people decided, for the tools that they use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_json, print_table, results
from tai_engine.cli.results_option import OR_RESULTS, picture_folder_of, results_at, tags_at
from tai_engine.errors import UserError


def export(
    tags: Annotated[Path | None, typer.Argument(help=f"A file of tags that `tai tag` made, {OR_RESULTS}.")] = None,
    to: Annotated[str, typer.Option("--to", help="The format; `tai export --formats` lists them.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="The file or folder to write; for xmp the folder of the sidecars.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="The folder of the pictures: for their sizes, and where xmp writes; default what was annotated.",
        ),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="The journal of a review; default the one beside the tags."),
    ] = None,
    image_prefix: Annotated[
        str, typer.Option("--image-prefix", help="Put before each id where a format wants an address.")
    ] = "",
    xmp_name: Annotated[
        str,
        typer.Option("--xmp-name", help="photo.jpg.xmp (digiKam, darktable) or photo.xmp (Lightroom)."),
    ] = "photo.jpg.xmp",
    file_items: Annotated[int, typer.Option("--file-items", help="Pictures in one file, for label-studio.")] = 10_000,
    formats: Annotated[bool, typer.Option("--formats", help="List the formats and leave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write tags for another tool; what a person decided goes before what the machine said."""
    from tai_engine.review.decided_tags import decided_rows, untagged_items
    from tai_engine.tagging import exporters
    from tai_engine.tagging.exporters.item_tags import ExportOptions

    if formats:
        known = exporters.EXPORTERS.values()
        print_table("Formats", ("--to", "makes", "for"), [(e.name, e.makes, e.about) for e in known])
        return
    if tags is None:
        raise UserError("Name the file of tags that `tai tag` made, or list the formats with --formats.")
    if not to and (out is None or exporters.get(out).makes != "file"):
        raise UserError("Say for which tool with --to; `tai export --formats` lists them.")
    exporter = exporters.get(to or out or "")
    images = picture_folder_of(images, results_at(tags))
    tags = tags_at(tags)
    if exporter.makes == "sidecars":
        out = out or images
    if out is None:
        raise UserError(
            "Say where sidecars go: --images with the folder of the pictures, or --out with another folder."
            if exporter.makes == "sidecars"
            else "Say where to write with --out."
        )
    if exporter.makes != "sidecars":
        exporter.check_place(out)
    rows, provenance, journal = decided_rows(tags, decisions)
    options = ExportOptions(images, image_prefix, xmp_name, file_items, untagged_items(tags, decisions))
    out = exporter.place(out)
    count = exporter.export(rows, out, provenance, options)
    if as_json:
        print_json({"format": exporter.name, "tags": count, "out": str(out), "decisions": journal and str(journal)})
        return
    told = f" with the decisions of {journal}" if journal else ""
    results.print(f"{count:,} tags{told} -> {out} ({exporter.about})", highlight=False, markup=False)
