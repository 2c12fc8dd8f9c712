"""Raise a store of an older schema to this one, in place.

Schema 2 adds hashes of the input files to stores of pictures. They come as an array that readers of schema 1 pass over;
the attributes that announce it, and the new schema, are replaced at the very end and in one step. A migration that is
cut off is simply run again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c

from tai_engine.errors import UserError
from tai_engine.files import write_error
from tai_engine.store.array_layout import array_description, open_group
from tai_engine.store.chunk_files import ChunkFiles
from tai_engine.store.commits import read_record, record_groups, write_record
from tai_engine.store.lock import hold_lock
from tai_engine.store.spec import ATTRIBUTE, CHECKSUM_BYTES, HASH_BYTES, SCHEMA_VERSION, StoreSpec
from tai_engine.store.store_files import METADATA, StoreFiles, open_files


@dataclass(frozen=True)
class MigrateReport:
    """What a migration did.

    Attributes:
        path: the store.
        schema_before, schema_after: equal if there was nothing to do.
        groups: how many groups the store has.
    """

    path: str
    schema_before: int
    schema_after: int
    groups: int

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return asdict(self)


def migrate_store(store: str | Path, progress: Callable[[int, int], None] | None = None) -> MigrateReport:
    """Raise a store to the schema that this version writes; nothing happens to one that has it.

    Damaged groups stay as they are, to be found by `verify_store`. Memory: one record.

    Args:
        store: its path or address.
        progress: gets how many groups are done, and how many there are.

    Raises:
        UserError: if there is no store, another process is writing it, a newer version made it, or the file system
            refuses.
    """
    files = open_files(store)
    spec = _spec_of(files)
    groups = record_groups(files)
    if spec.schema_version < SCHEMA_VERSION:
        with hold_lock(files):
            # Nobody else has done it meanwhile, or it does no harm to do it again.
            raised = replace(spec, schema_version=SCHEMA_VERSION, has_content_hash=spec.kind == "images")
            try:
                if raised.has_content_hash:
                    _add_hashes(files, raised, groups, progress)
                _replace_attributes(files, raised)
            except OSError as error:
                raise write_error(str(files), error) from error
    return MigrateReport(str(files), spec.schema_version, SCHEMA_VERSION, len(groups))


def _spec_of(files: StoreFiles) -> StoreSpec:
    _, attributes = open_group(files)
    return StoreSpec.from_attributes(attributes, files)


def _add_hashes(
    files: StoreFiles, spec: StoreSpec, groups: list[int], progress: Callable[[int, int], None] | None
) -> None:
    """Write an array of hashes that are all unknown."""
    chunks = ChunkFiles(files, spec)
    length = (groups[-1] + 1) * spec.group_items if groups else 0
    files.write(f"content_hash/{METADATA}", array_description(spec, "content_hash", length))
    zeros = bytes(spec.group_items * HASH_BYTES)
    chunk = zeros + google_crc32c.value(zeros).to_bytes(CHECKSUM_BYTES, "little")
    for count, group in enumerate(groups, 1):
        try:
            record = read_record(files, group)
        except UserError:
            continue  # damaged
        for name in chunks.of_group("content_hash", record):
            files.write(name, chunk)
        with contextlib.suppress(FileNotFoundError):  # damaged
            write_record(files, replace(record, bytes=chunks.total_bytes(record)))
        if progress is not None:
            progress(count, len(groups))


def _replace_attributes(files: StoreFiles, spec: StoreSpec) -> None:
    metadata = json.loads(files.read(METADATA))
    metadata["attributes"][ATTRIBUTE] |= {
        "schema_version": spec.schema_version,
        "has_content_hash": spec.has_content_hash,
    }
    files.write(METADATA, json.dumps(metadata, indent=2))
