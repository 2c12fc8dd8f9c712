"""Options that several commands share, and which encoder they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.cli.output import remarks
from tai_engine.errors import MANY, UserError

if TYPE_CHECKING:
    from tai_engine.encoders import Encoder
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.store import FeatureStore
    from tai_engine.vocabulary import Vocabulary

# What the shell sees; everything done is 0.
SOME_ITEMS_FAILED = 1
USAGE_OR_ENVIRONMENT = 2
MISTAKE_OF_OURS = 3
INTERRUPTED = 130

DEFAULT_MODEL = "RN50"
DEFAULT_PRETRAINED = "openai"
EVERYDAY = "everyday"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="A model of open_clip, 'hf-hub:OWNER/REPOSITORY', 'local-dir:FOLDER', or 'photos' (a small one that comes "
        "with the engine).",
    ),
]
Pretrained = Annotated[str, typer.Option("--pretrained", help="open_clip's tag of the weights.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast/--exact",
        help="Encode pictures the fast way, once it agrees with the exact one; or as open_clip does, in fp32.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=0, help="Items per encoder call; 0 finds one that fits.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Decoding workers; 0 means one per core.")]
MergeDuplicates = Annotated[
    bool,
    typer.Option("--merge-duplicates", help="Take classes of one name together; other words stay with the first."),
]
VocabularyColumn = Annotated[
    str | None, typer.Option("--vocabulary-column", help="Of a vocabulary that is a table: the column of names.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of an option's value, without the spaces around them and without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def open_encoder(model: str, pretrained: str, **options: Any) -> Encoder:
    """`load_encoder`, imported when it is needed: open_clip takes seconds."""
    from tai_engine.encoders import load_encoder

    return load_encoder(model, pretrained, **options)


@dataclass(frozen=True)
class VocabularyChoice:
    """Which words a command was told to use.

    Attributes:
        spec: as ``--vocabulary``.
        merge_duplicates: as ``--merge-duplicates``.
        column: as ``--vocabulary-column``.
    """

    spec: str
    merge_duplicates: bool = False
    column: str | None = None

    def load(self) -> Vocabulary:
        """Read it.

        Raises:
            UserError: as `load_vocabulary`.
        """
        from tai_engine.vocabulary import load_vocabulary

        return load_vocabulary(self.spec, merge_duplicates=self.merge_duplicates, column=self.column)


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder goes with a store.

    Attributes:
        model: as ``--model``; None is the one that made the store.
        pretrained: as ``--pretrained``, of ``model``.
        device: as ``--device``.
        precision: as ``--precision``.
    """

    model: str | None
    pretrained: str
    device: str
    precision: str

    def open_or(self, model: str, pretrained: str) -> Encoder:
        """Load the one that was named, or else this one.

        Raises:
            UserError: as `load_encoder`.
        """
        named = (self.model, self.pretrained) if self.model is not None else (model, self.pretrained or pretrained)
        return open_encoder(*named, device=self.device, precision=self.precision)

    def open(self, store: FeatureStore) -> Encoder:
        """Load it.

        Raises:
            UserError: if the store does not say what made it, or if the weights that are found now are not those of the
                store; and as `load_encoder`.
        """
        if self.model is not None:
            return open_encoder(self.model, self.pretrained, device=self.device, precision=self.precision)
        if self.pretrained:
            raise UserError("--pretrained names the weights of --model: add that one, or leave both out.")
        provenance = store.spec.provenance
        model, pretrained = str(provenance.get("model", "")), str(provenance.get("pretrained", ""))
        if not model:
            raise UserError(
                f"The store '{store.path}' does not say which model made it: name one with --model and --pretrained."
            )
        from tai_engine.encoders import cached_weights

        # A store may come from anybody: what it names is not fetched from just any repository.
        if model.startswith("hf-hub:") and cached_weights(model, pretrained) is None:
            raise UserError(
                f"The store '{store.path}' says that {model!r} made it, which is not on this machine; if you trust "
                f"that repository, name it: --model {model!r}."
            )
        encoder = open_encoder(model, pretrained, device=self.device, precision=self.precision)
        if encoder.space_key != store.spec.space_key:
            raise UserError(
                f"The store '{store.path}' is of the embedding space {store.spec.space_key!r}, but {model!r} "
                f"{pretrained!r} now gives {encoder.space_key!r}: name the weights that made the store with --model "
                "and --pretrained."
            )
        return encoder

    def of(self, store: FeatureStore) -> StoreEncoder:
        """The same, loaded only when it is needed."""
        return StoreEncoder(self, store)


class StoreEncoder:
    """The encoder that goes with a store, loaded once and only if it is needed: class vectors may have been kept."""

    def __init__(self, choice: EncoderChoice, store: FeatureStore) -> None:
        self._choice = choice
        self._store = store

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder.

        Raises:
            UserError: as `EncoderChoice.open`.
        """
        return self._choice.open(self._store)

    def zero_shot(
        self, words: Vocabulary, templates: Sequence[str] | None = None, says_unread: bool = False
    ) -> PromptSet:
        """Class vectors of hand-written templates in the store's space (CLIP's plain one, if none are given).

        A model that only this command names is asked itself; vectors of the store's own may have been kept. With
        ``says_unread`` names that the model has hardly read are said in a line.

        Raises:
            UserError: as `zero_shot_prompts`, and, where the encoder is needed, as `EncoderChoice.open`.
        """
        from tai_engine.encoders.devices import resolve_device
        from tai_engine.encoders.embedded import embedded_folder
        from tai_engine.prompts import kept_vectors, prompt_set
        from tai_engine.vocabulary import DEFAULT_TEMPLATE

        spec, choice = self._store.spec, self._choice
        templates = (DEFAULT_TEMPLATE,) if templates is None else templates
        own = tuple(str(spec.provenance.get(name) or "") for name in ("model", "pretrained"))
        if (choice.model is not None or choice.pretrained) and (choice.model, choice.pretrained) != own:
            if says_unread:
                say_unread(self.encoder.unread_words(words.prompt_names), words)
            return prompt_set.zero_shot_prompts(self.encoder, words, templates)
        prefix, _, rest = own[0].partition(":")
        folder = embedded_folder(own[0]) or (Path(rest).expanduser() if prefix == "local-dir" else None)
        origin = kept_vectors.TextOrigin(
            spec.space_key,
            () if folder is None else kept_vectors.files_of(folder),
            resolve_device(choice.device).type,
            choice.precision,
        )
        kept = kept_vectors.kept_zero_shot(kept_vectors.default_cache(), origin, lambda: self.encoder, words, templates)
        if says_unread:
            say_unread(kept.unread, words)
        return kept.prompts


def say_unread(unread: Sequence[str], words: Vocabulary) -> None:
    """A line with the names that the model's text tower has hardly read, if there are any.

    Nobody asked for the words of `EVERYDAY`, which `tai annotate` takes by itself, one by one, so there it is not said.
    """
    from tai_engine.vocabulary import load_vocabulary

    if unread and words.fingerprint != load_vocabulary(EVERYDAY).fingerprint:
        names = ", ".join(map(repr, unread[:MANY])) + (f" and {len(unread) - MANY} more" if len(unread) > MANY else "")
        remarks.print(
            f"The model has never or hardly read words of {len(unread):,} of {len(words):,} names ({names}): it knows "
            "nothing of them, or little; call them otherwise, or take another model.",
            style="yellow",
        )
