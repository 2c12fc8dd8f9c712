"""A folder of results: all that `tai annotate` makes of some pictures, where every other command finds it.

results/annotate.json                   which pictures these are, and which model reads them; there before all else
results/features.zarr                   their features
results/prompts.safetensors             the words, as vectors that features are scored with
results/tags.parquet                    the tags
results/tags.parquet.decisions.jsonl    what people decided about them (`tai review`)
results/report/index.html               the page to look at
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tai_engine.addresses import is_address
from tai_engine.errors import ItemError, UserError
from tai_engine.files import check_place, write_atomically
from tai_engine.json_documents import read_json
from tai_engine.regular_files import printable
from tai_engine.review.journal import default_journal
from tai_engine.store import FeatureStore
from tai_engine.tagging.exporters.folders import require_free, whole_folder

RECORD = "annotate.json"
FORMAT, VERSION = "tai-engine results", 1
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class AnnotatedPictures:
    """What a folder of results is about.

    Attributes:
        images: the folder, list, archive or address of the pictures; a path is absolute.
        model: as ``--model``; the folder of a ``local-dir:`` is absolute.
        pretrained: as ``--pretrained``.
    """

    images: str
    model: str
    pretrained: str


@dataclass(frozen=True)
class ResultsFolder:
    """One folder; what it holds lies under the names that the module lists.

    Attributes:
        path: the folder.
        about: what stands in its `RECORD`.
    """

    path: Path
    about: AnnotatedPictures

    @property
    def title(self) -> str:
        """What its page is called."""
        return Path(os.path.realpath(self.path)).name

    @property
    def store(self) -> Path:
        """The features."""
        return self.path / "features.zarr"

    @property
    def prompts(self) -> Path:
        """The prompt set of the words."""
        return self.path / "prompts.safetensors"

    @property
    def tags(self) -> Path:
        """The file of tags."""
        return self.path / "tags.parquet"

    @property
    def journal(self) -> Path:
        """The decisions, once there are any."""
        return default_journal(self.tags)

    @property
    def report(self) -> Path:
        """The folder of the page."""
        return self.path / "report"

    @property
    def picture_folder(self) -> Path | None:
        """The folder of the pictures; None for a list, an archive or an address."""
        images = self.about.images
        return Path(images) if not is_address(images) and Path(images).is_dir() else None

    @classmethod
    def at(cls, place: str | Path) -> ResultsFolder | None:
        """The one that lies at ``place``; None for anything else, a store or a file for instance.

        Raises:
            UserError: if its record is damaged or of a newer version.
        """
        path = Path(place)
        record = path / RECORD
        if is_address(str(place)) or not os.path.isfile(record):  # noqa: PTH113 - some names are too long for a path
            return None
        try:
            said = read_json(record, _MOST_BYTES)
            if not isinstance(said, dict) or said.get("format") != FORMAT:
                raise ValueError(f"it does not say that it is of {FORMAT!r}")
            if said.get("version") != VERSION:
                raise ValueError(f"it has version {said.get('version')!r}, and this program reads {VERSION}")
            known = {field.name: said[field.name] for field in fields(AnnotatedPictures)}
            if not all(isinstance(value, str) for value in known.values()):
                raise ValueError("something in it is no text")
        except (ItemError, ValueError, KeyError) as error:
            cause = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"'{record}' is no record of `tai annotate` ({cause}): choose another folder, or take a copy that is "
                "whole."
            ) from error
        return cls(path, AnnotatedPictures(**known))

    @classmethod
    def to_fill(
        cls,
        out: str | Path,
        images: str,
        model: str | None,
        pretrained: str | None,
        default: tuple[str, str],
        *,
        has_moved: bool = False,
    ) -> ResultsFolder:
        """The folder of a run: the one that is there, gone on with, or a new one. Nothing is written yet.

        Args:
            out: where it is, or shall be.
            images: what is annotated, as `AnnotatedPictures.images`.
            model: as ``--model``; None is the one of the folder.
            pretrained: as ``--pretrained``; likewise.
            default: model and weights of a new folder where none are named.
            has_moved: whether ``images`` are those of the folder, at another place now.

        Raises:
            UserError: for a place that is taken or cannot be written, or results of other pictures or another model.
        """
        path = Path(out)
        check_place(path, folder=True)
        _require_apart(path, images)
        there = cls.at(path)
        if there is None:
            require_free(path)
            return cls(path, AnnotatedPictures(images, *_model_of(model, pretrained, default)))
        about = there.about
        if about.images != images and not has_moved:
            raise UserError(
                f"The results in '{path}' are of the pictures in '{printable(about.images)}', not of "
                f"'{printable(images)}': name another folder with --out, or say --moved if they are the same pictures "
                "at another place."
            )
        named = _model_of(model, pretrained, (about.model, about.pretrained))
        # Before there are any features, as when the weights could not be had, another model does no harm.
        if named != (about.model, about.pretrained) and not FeatureStore.is_free(there.store):
            raise UserError(
                f"The results in '{path}' were made with {_spoken(about.model, about.pretrained)}, not with "
                f"{_spoken(*named)}: leave --model and --pretrained out to go on with it, or name another folder with "
                "--out."
            )
        return replace(there, about=AnnotatedPictures(images, *named))

    def save(self) -> None:
        """Write the record, and make the folder if there is none; a new one appears with its record in it.

        Raises:
            UserError: when the place refuses.
        """
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self.about)}, indent=1) + "\n"
        if (self.path / RECORD).exists():
            write_atomically(self.path / RECORD, text)
            return
        with whole_folder(self.path) as folder:
            (folder / RECORD).write_text(text, encoding="utf-8")


def _require_apart(out: Path, images: str) -> None:
    """Results among the pictures would be taken for pictures: their report has thumbnails."""
    if is_address(images):
        return
    place, pictures = Path(os.path.realpath(out)), Path(images)
    if place == pictures or (pictures.is_dir() and place.is_relative_to(pictures)):
        raise UserError(
            f"'{out}' lies in the folder of the pictures, '{printable(images)}', where thumbnails of the report would "
            "be taken for pictures: name a folder outside of it with --out."
        )


def _model_of(model: str | None, pretrained: str | None, default: tuple[str, str]) -> tuple[str, str]:
    """The model and weights that are meant; of a model that is named, its weights are what is said, or none."""
    if model is None:
        return default if pretrained is None else (default[0], pretrained)
    if model.startswith("local-dir:"):
        model = f"local-dir:{os.path.realpath(model.removeprefix('local-dir:'))}"
    weights = "" if model.startswith("local-dir:") else default[1]
    return model, weights if pretrained is None else pretrained


def _spoken(model: str, pretrained: str) -> str:
    return f"{model!r} {pretrained!r}" if pretrained else repr(model)
