"""What a feature store is made of: its identity, its sizes, and where a commit group lies in its arrays.

The format is described in STORE_FORMAT.md. Legend: D embedding size, L most fine rows that one item can have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tai_engine.errors import UserError
from tai_engine.spaces import require_same_space
from tai_engine.store.layout.labels import LabelSpec, require_same_labels
from tai_engine.store.places.damage import DamagedDescriptionError

SCHEMA_VERSION = 2
ATTRIBUTE = "tai_engine"
KINDS = ("images", "sentences")
ROW_DTYPES = {"float16": 2, "float32": 4, "int8": 1}
"""Types of fine rows and their bytes per number."""

DEFAULT_GROUP_ITEMS = 1024
DEFAULT_CHUNK_ITEMS = 64
SENTENCE_CHUNK_ROWS = 4096
CHECKSUM_BYTES = 4
SCALE_BYTES = 4
HASH_BYTES = 16
# Guesses for estimates: ids are paths, texts are captions.
_ID_BYTES = 80
_TEXT_BYTES = 60

# What a store can be asked to have: a group stays far below the memory of a machine, whatever a foreign store says.
_LIMITS = (
    ("dim", 1, 65_536),
    ("rows_per_item_max", 0, 65_536),
    ("group_items", 1, 1_048_576),
    ("chunk_items", 1, 1_048_576),
)
_MAX_GROUP_BYTES = 2**36

# Attributes that came later: stores without them are sound.
_ADDED = {"has_text", "labels", "has_content_hash"}

STATUS_PENDING, STATUS_DONE, STATUS_FAILED, STATUS_DELETED = 0, 1, 2, 3
STATUS_NAMES = ("pending", "done", "failed", "deleted")


@dataclass(frozen=True)
class StoreSpec:
    """Identity and sizes of a store; they never change once it is made.

    Attributes:
        kind: ``"images"`` or ``"sentences"``.
        space_key: architecture, tokenizer and weights of the vectors.
        recipe_key: how inputs became vectors (preprocessing, size, dense and coarse recipe, decoding options).
        dim: D.
        rows_per_item_max: L; 0 for a store of coarse vectors alone.
        row_dtype: ``"float16"``, ``"float32"``, or ``"int8"`` with a scale for each fine row (coarse vectors are then
            float16).
        has_coarse_clip: whether CLIP's own image vector is kept beside the coarse one.
        group_items: item slots of a commit group.
        chunk_items: items per chunk of coarse rows, and of fine rows for images; divides ``group_items``.
        provenance: where the vectors come from (model, weights hash, precision, versions); not identity.
        recipe: what ``recipe_key`` is the key of.
        has_text: whether the text of every item is kept.
        labels: what the labels of the items mean; None for a store without labels.
        has_content_hash: whether a hash of every input file is kept beside its size and time.

    Raises:
        ValueError: for values that do not fit together.
    """

    kind: str
    space_key: str
    recipe_key: str
    dim: int
    rows_per_item_max: int
    row_dtype: str = "float16"
    has_coarse_clip: bool = False
    group_items: int = DEFAULT_GROUP_ITEMS
    chunk_items: int = DEFAULT_CHUNK_ITEMS
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    has_text: bool = False
    labels: LabelSpec | None = None
    has_content_hash: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, expected one of {KINDS}")
        if self.row_dtype not in ROW_DTYPES:
            raise ValueError(f"row_dtype is {self.row_dtype!r}, expected one of {tuple(ROW_DTYPES)}")
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}, expected a whole number from {least} to {most:,}")
        for name in ("has_coarse_clip", "has_text", "has_content_hash"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")
        for name in ("space_key", "recipe_key"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected text")
        for name in ("provenance", "recipe"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected an object")
        if self.group_items % self.chunk_items:
            raise ValueError(f"group_items ({self.group_items}) is not a multiple of chunk_items ({self.chunk_items})")
        if self._group_bytes(self.group_items, self.rows_per_item_max) > _MAX_GROUP_BYTES:
            raise ValueError(f"a group of {self.group_items} items is larger than {_MAX_GROUP_BYTES:,} bytes")

    @property
    def has_fine(self) -> bool:
        """Whether fine rows are kept at all."""
        return self.rows_per_item_max > 0

    @property
    def is_quantised(self) -> bool:
        """Whether fine rows are kept as int8, with a scale each."""
        return self.row_dtype == "int8" and self.has_fine

    @property
    def coarse_dtype(self) -> str:
        """The type of coarse vectors."""
        return "float16" if self.row_dtype == "int8" else self.row_dtype

    @property
    def fine_chunk_rows(self) -> int:
        """Rows of a chunk of ``fine``: those of ``chunk_items`` images, or 4096 of sentences (0 without fine rows)."""
        if not self.has_fine:
            return 0
        return self.chunk_items * self.rows_per_item_max if self.kind == "images" else SENTENCE_CHUNK_ROWS

    @property
    def group_rows(self) -> int:
        """Fine rows set aside for a commit group: the most that its items can have, in whole chunks."""
        if not self.has_fine:
            return 0
        return math.ceil(self.group_items * self.rows_per_item_max / self.fine_chunk_rows) * self.fine_chunk_rows

    def estimate_bytes(self, items: int, rows_per_item: float | None = None) -> int:
        """Bytes on disk that ``items`` more items take, in whole groups and chunks (metadata and file system aside).

        Args:
            items: how many.
            rows_per_item: mean fine rows of an item; by default the most there can be, which is exact for images.
        """
        rows_per_item = self.rows_per_item_max if rows_per_item is None else rows_per_item
        groups, rest = divmod(items, self.group_items)
        return groups * self._group_bytes(self.group_items, rows_per_item) + self._group_bytes(rest, rows_per_item)

    def _group_bytes(self, items: int, rows_per_item: float) -> int:
        if items == 0:
            return 0
        vector = self.dim * ROW_DTYPES[self.coarse_dtype]
        coarse = math.ceil(items / self.chunk_items) * (self.chunk_items * vector + CHECKSUM_BYTES)
        fine = 0
        if self.has_fine:
            row = self.dim * ROW_DTYPES[self.row_dtype]
            chunk = self.fine_chunk_rows * row + CHECKSUM_BYTES
            if self.is_quantised:
                chunk += self.fine_chunk_rows * SCALE_BYTES + CHECKSUM_BYTES
            fine = math.ceil(items * rows_per_item / self.fine_chunk_rows) * chunk
        # status, count, size, modified_ns, labels and content_hash are chunks of a whole group.
        per_slot = 1 + 4 + 8 + 8 + (self.labels.packed_bytes if self.labels else 0)
        per_slot += HASH_BYTES if self.has_content_hash else 0
        per_item = items * (_ID_BYTES + 4 + (_TEXT_BYTES + 4 if self.has_text else 0)) + self.group_items * per_slot
        return per_item + coarse * (2 if self.has_coarse_clip else 1) + fine

    def to_attributes(self) -> dict[str, Any]:
        """The spec as JSON, for the attributes of the Zarr group."""
        presence = {"has_fine": self.has_fine, "has_labels": self.labels is not None}
        return {"schema_version": SCHEMA_VERSION, **asdict(self), **presence}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any] | None, path: object) -> StoreSpec:
        """The spec of the store at ``path`` from its attributes.

        Raises:
            UserError: for another schema, or attributes that make no sense.
        """
        version = None if attributes is None else attributes.get("schema_version")
        if attributes is None or not isinstance(version, int) or version < 1:
            what = f"its attributes lack {ATTRIBUTE}.schema_version"
            message = (
                f"The Zarr group at {path} is not a feature store ({what}); give the path of a store that `tai cache` "
                "made."
            )
            raise DamagedDescriptionError(message, "zarr.json", what)
        if version > SCHEMA_VERSION:
            raise UserError(
                f"The store {path} has schema version {version}, and this tai-engine reads versions up to "
                f"{SCHEMA_VERSION}; upgrade tai-engine to read it."
            )
        if version < SCHEMA_VERSION:
            raise UserError(
                f"The store {path} has schema version {version}, which no release of tai-engine wrote; make it again."
            )
        try:
            values = {f.name: attributes[f.name] for f in fields(cls) if f.name in attributes or f.name not in _ADDED}
            if values.get("labels") is not None:
                values["labels"] = LabelSpec.from_attributes(values["labels"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            message = (
                f"The attributes in {path}/zarr.json are damaged ({error}); restore that file or make the store again."
            )
            raise DamagedDescriptionError(message, "zarr.json", str(error)) from error

    def require_compatible(self, wanted: StoreSpec, path: object) -> None:
        """Refuse to go on filling the store at ``path``, which has this spec, with features of the ``wanted`` one.

        Raises:
            UserError: naming what differs, both ways.
        """
        if self.kind != wanted.kind:
            raise UserError(f"The store {path} holds {self.kind}, not {wanted.kind}; choose another store.")
        require_same_space(self, wanted, f"The store {path}", "the encoder")
        if self.recipe_key != wanted.recipe_key:
            raise UserError(
                f"The store {path} was made with the recipe {self.recipe_key!r}, but this run has "
                f"{wanted.recipe_key!r}: a store holds one recipe; give the same options as before or choose another "
                "store."
            )
        for name, word in (
            ("rows_per_item_max", "fine rows per item"),
            ("row_dtype", "row type"),
            ("has_coarse_clip", "second coarse vector"),
            ("has_text", "texts"),
        ):
            old, new = getattr(self, name), getattr(wanted, name)
            if old != new:
                raise UserError(
                    f"The store {path} has {word} {old}, but this run has {new}; "
                    "give the same options as before or choose another store."
                )
        require_same_labels(self.labels, wanted.labels, path)


def unknown_parts(attributes: Mapping[str, Any]) -> list[str]:
    """Parts of a store that its attributes announce and this version does not know; it can read past them only."""
    known = {"has_fine", "has_coarse_clip", "has_text", "has_labels", "has_content_hash"}
    return sorted(key.removeprefix("has_") for key in set(attributes) - known if key[:4] == "has_" and attributes[key])


@dataclass(frozen=True)
class StoredItem:
    """What a store says of an input beside its vectors.

    Attributes:
        id: its name, UTF-8.
        status: ``"done"``, ``"failed"``, ``"deleted"`` or ``"pending"``.
        reason: why it failed.
        size: bytes of the input when it was read, None if not known.
        modified_ns: modification time of the input in nanoseconds since 1970, None if not known.
        text: the sentence itself; None in a store without texts.
        labels: indices of its classes, rising; None in a store without labels.
        content_hash: BLAKE2b of 16 bytes of the input file; None if not known, or in a store without these.
    """

    id: str
    status: str = "done"
    reason: str | None = None
    size: int | None = None
    modified_ns: int | None = None
    text: str | None = None
    labels: tuple[int, ...] | None = None
    content_hash: bytes | None = None
