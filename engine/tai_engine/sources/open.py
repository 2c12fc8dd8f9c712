"""From what a user writes to the source that it stands for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tai_engine.addresses import head_of, is_address, local_path, name_of
from tai_engine.errors import UserError
from tai_engine.regular_files import printable
from tai_engine.sources.address_folder import AddressFileSource, AddressFolderSource
from tai_engine.sources.folder import FileSource, FolderSource
from tai_engine.sources.items import TAR_SUFFIXES, is_image_name, is_picture_file, is_tar_name
from tai_engine.sources.listing import ListSource
from tai_engine.sources.patterns import is_pattern
from tai_engine.sources.source import Source, SourceOptions
from tai_engine.sources.tar import TarSource
from tai_engine.sources.walk_notes import suffix_of
from tai_engine.tables import LIST_SUFFIXES, is_list


def open_source(spec: str | Path, options: SourceOptions | None = None) -> Source:
    """The source that a path or address stands for.

    Args:
        spec: a folder; a list (JSONL, CSV, TSV or Parquet); a tar archive or a pattern of many, such as
            ``shards-{000..099}.tar`` or ``*.tar``; or one picture. Each may be a path or an address that fsspec can
            read, such as ``s3://bucket/photos``.
        options: what is passed over, and how a list is read.

    Raises:
        UserError: for a path that does not exist, a folder or archive without pictures, a list with a mistake, a file
            of another kind, or an address whose package is not installed.
    """
    text = os.fspath(spec)
    options = options or SourceOptions()
    if not is_address(text):
        return _open_path(text, options)
    path = local_path(text)
    return _open_address(text, options) if path is None else _open_path(path, options)


def _open_path(text: str, options: SourceOptions) -> Source:
    path = Path(text)
    try:
        mode = os.stat(text).st_mode  # noqa: PTH116 - an empty text is no path
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"'{printable(text)}' cannot be read ({reason}): check the path and your rights.") from error
    if mode is not None and stat.S_ISDIR(mode):
        return FolderSource(path, options)
    if mode is not None:
        if is_list(path) or options.is_of_list:
            return ListSource(path, options)
        if is_tar_name(text):
            return TarSource(text, options)
        if is_image_name(text) or (not suffix_of(path.name) and is_picture_file(text)):
            return FileSource(path)
        raise UserError(
            f"'{printable(text)}' is neither a folder, nor a list ({', '.join(LIST_SUFFIXES)}), nor a tar archive "
            f"({', '.join(TAR_SUFFIXES)}), nor a picture by its suffix: give one of these, or say --format of a list "
            "that is called otherwise."
        )
    if is_pattern(text):
        return TarSource(text, options)
    raise UserError(f"There is no folder or file '{printable(text)}': check the path.")


def _open_address(text: str, options: SourceOptions) -> Source:
    name = name_of(text)
    if is_list(name) or options.is_of_list:
        return ListSource(text, options)
    if is_tar_name(name) or is_pattern(head_of(text)):
        return TarSource(text, options)
    if is_image_name(name):
        return AddressFileSource(text)
    return AddressFolderSource(text, options)
