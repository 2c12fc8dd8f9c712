"""A folder that `tai annotate` filled, in the place of the store, the file of tags or the pictures that are in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tai_engine.errors import UserError

if TYPE_CHECKING:
    from tai_engine.annotating.results_folder import ResultsFolder

OR_RESULTS = "or a folder that `tai annotate` filled"


def results_at(place: str | Path | None) -> ResultsFolder | None:
    """The folder of results that was named; None for anything else.

    Raises:
        UserError: as `ResultsFolder.at`.
    """
    from tai_engine.annotating.results_folder import ResultsFolder

    return None if place is None else ResultsFolder.at(place)


def store_at(place: str) -> str:
    """The store that was named: itself, or that of a folder of results.

    Raises:
        UserError: as `ResultsFolder.at`, and for a folder without one.
    """
    results = results_at(place)
    return place if results is None else str(_there(results.store, "store", results))


def tags_at(place: Path) -> Path:
    """The file of tags that was named: itself, or that of a folder of results.

    Raises:
        UserError: as `ResultsFolder.at`, and for a folder without one.
    """
    results = results_at(place)
    return place if results is None else _there(results.tags, "file of tags", results)


def images_of(given: str | None, results: ResultsFolder | None) -> str:
    """Where the pictures lie, by ``--images`` or by the folder of results.

    Raises:
        UserError: if neither says it.
    """
    if given is not None:
        return given
    if results is None:
        raise UserError("Say where the pictures lie, by --images with what `tai cache images` was given.")
    return results.about.images


def picture_folder_of(given: Path | None, results: ResultsFolder | None) -> Path | None:
    """The folder that ids are relative to, by ``--images`` or by the folder of results; None if neither knows one."""
    return given if given is not None or results is None else results.picture_folder


def prompts_of(results: ResultsFolder | None) -> Path | None:
    """The prompt set of a folder of results, if it has one."""
    return results.prompts if results is not None and results.prompts.exists() else None


def _there(path: Path, what: str, results: ResultsFolder) -> Path:
    if not path.exists():
        raise UserError(
            f"The folder '{results.path}' has no {what} yet: run the same `tai annotate` again, which goes on where it "
            "stopped."
        )
    return path
