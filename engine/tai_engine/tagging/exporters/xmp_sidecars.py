"""XMP sidecars beside the pictures, as digiKam, darktable, Lightroom, Capture One and Immich read them.

Neither scores nor the model's name go into them, and the pictures themselves are never touched.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from tai_engine.errors import ItemError, UserError
from tai_engine.files import write_atomically
from tai_engine.regular_files import check_size, open_regular
from tai_engine.sources.ids import picture_path
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions, items_of
from tai_engine.tagging.exporters.xmp_packet import NoXmpError, merge_tags

_MOST_BYTES = 64 << 20
_SHOWN = 3


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],  # noqa: ARG001 - nothing of it goes into people's pictures
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write or update one sidecar a picture in the folder ``path``, which is the pictures' own or another one with the
    same subfolders.

    A sidecar that cannot be merged with is left as it is, and all others are written before that is said.

    Memory: one batch, one sidecar and the names of all sidecars.

    Raises:
        UserError: when sidecars could not be written; says which and why.
    """
    folder, rows, written, left = Path(path), 0, set[Path](), list[str]()
    for item in items_of(batches):
        try:
            sidecar = _sidecar(folder, item.id, options.xmp_name)
            _write(sidecar, [tag.name for tag in item.tags], keep=sidecar in written)
            written.add(sidecar)
            rows += len(item.tags)
        except (NoXmpError, ValueError) as error:
            if isinstance(error, UserError) and _is_full(error):
                raise
            left.append(f"{item.id} ({error})")
    if left:
        more = f" and {len(left) - _SHOWN:,} more" if len(left) > _SHOWN else ""
        raise UserError(
            f"{len(written):,} sidecars are up to date, and {len(left):,} were left as they are: "
            f"{'; '.join(left[:_SHOWN])}{more}. Move them away or mend them, then export again."
        )
    return rows


def _sidecar(folder: Path, item_id: str, naming: str) -> Path:
    picture = picture_path(folder, item_id)
    return picture.with_suffix(".xmp") if naming == "photo.xmp" else picture.with_name(picture.name + ".xmp")


def _write(sidecar: Path, tags: list[str], *, keep: bool) -> None:
    there: bytes | None = None
    try:
        with open_regular(sidecar) as file:
            there = file.read(_MOST_BYTES + 1)
        check_size(len(there), _MOST_BYTES)
    except ItemError as error:
        if error.reason != "missing":
            raise NoXmpError(f"'{sidecar}' cannot be read: {error.detail}") from error
        if not tags:
            return
    try:
        changed = merge_tags(there, tags, keep=keep)
    except NoXmpError as error:
        raise NoXmpError(f"'{sidecar}' is not XMP: {error}") from error
    if changed is not None:
        write_atomically(sidecar, changed)


def _is_full(error: UserError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
