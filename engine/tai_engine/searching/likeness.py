"""What to look for, when it is a picture: a file, or an item of the store itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from tai_engine.decoding.apart import decode_apart
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.errors import ItemError, UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore


class PictureEncoder(Protocol):
    """What a picture's vector needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    space_key: str

    def encode_images(self, images: Sequence[Image.Image], ids: Sequence[str], /) -> FeatureBatch:
        """Features of pictures."""


def vectors_like(names: Sequence[str], store: FeatureStore, encoder: PictureEncoder) -> Tensor:
    """The coarse vectors [Q, D] fp32 of pictures: of a file where there is one of that name, else of the item.

    Raises:
        UserError: for a name that is neither, or a file that is no picture.
    """
    return torch.cat([_vector(name, store, encoder) for name in names])


def open_picture(path: Path, decoding: Any = None) -> Image.Image:
    """The RGB picture in a file, decoded as a store's recipe says.

    Raises:
        UserError: when it cannot be read.
    """
    known = {name: value for name, value in (decoding or {}).items() if name in DecodeOptions.__dataclass_fields__}
    try:
        return decode_apart(path, DecodeOptions(**known))
    except ItemError as error:
        raise UserError(f"The picture '{path}' cannot be read ({error}): give another one.") from error


def _vector(name: str, store: FeatureStore, encoder: PictureEncoder) -> Tensor:
    if Path(name).is_file():
        picture = open_picture(Path(name), store.spec.recipe.get("decoding"))
        return encoder.encode_images([picture], [name]).coarse.float().cpu()
    try:
        return store.read_ids([name], with_fine=False).coarse.float()
    except UserError as error:
        raise UserError(f"{name!r} is neither a file nor a picture in the store '{store.path}': {error}") from error
