"""Pictures to rows of unit length: which tower computes them, and batches of a few shapes.

Shape legend: N pictures, L fine rows per picture, T fine rows of all pictures, D embedding size, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tai_engine.encoders import devices
from tai_engine.encoders.dense import ImageRecipe, ImageVectors
from tai_engine.encoders.fast.gate import fast_tower
from tai_engine.encoders.unit_rows import join_rows, unit_rows


class ImageEncoding:
    """The image half of an encoder. Memory: the rows of one call, the activations of one batch, a fast tower's weights.

    Attributes:
        precision: what is asked for, and once `prepare` was called what the tower computes in.
        is_fast: whether a rewritten tower computes; before `prepare`, whether it is asked for.
    """

    def __init__(
        self,
        visual: Any,
        recipe: ImageRecipe,
        *,
        dim: int,
        device: torch.device,
        precision: str,
        image_size: int,
        batch_size: int,
        fast: bool,
    ) -> None:
        """``visual`` is on ``device`` when it is first used; ``batch_size`` 0 is automatic."""
        self._exact: tuple[ImageRecipe, Any] | None = (recipe, visual)  # until `prepare`
        self._dim = dim
        self._device = device
        self._image_size = image_size
        self._batch = devices.image_batch(batch_size, device, image_size)
        self._compute: Callable[[Tensor], ImageVectors] | None = None
        self.precision = precision
        self.is_fast = fast

    def prepare(self) -> None:
        """Make the fast tower, if it is asked for, and compare it with the exact one, of which nothing is kept then."""
        if self._exact is None:
            return
        recipe, visual = self._exact
        if self.is_fast:
            with devices.exact_arithmetic(self._device, "fp32"):
                fast = fast_tower(recipe, visual, self._image_size, self.precision, self._device)
            if fast is not None:
                self.precision, self._compute, self._exact = fast.precision, fast.compute, None
                return
            self.precision, self.is_fast = "fp32", False
        dtype = devices.PRECISIONS[self.precision]
        self._compute, self._exact = (lambda pixels_NCHW: recipe.compute(pixels_NCHW.to(dtype))), None

    def check(self, pixels_NCHW: Tensor, floating: bool) -> None:
        """Refuse pictures that are not [N, 3, S, S], of a float dtype or of uint8.

        Raises:
            ValueError: for another shape or dtype.
        """
        right_dtype = pixels_NCHW.is_floating_point() if floating else pixels_NCHW.dtype == torch.uint8
        size = self._image_size
        if not right_dtype or pixels_NCHW.ndim != 4 or pixels_NCHW.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixels are {pixels_NCHW.dtype} {tuple(pixels_NCHW.shape)}, "
                f"expected {'a float dtype' if floating else 'uint8'} (N, 3, {size}, {size})"
            )

    def vectors(self, pixels_NCHW: Tensor) -> ImageVectors:
        """What the tower gives for one batch of normalised pictures, on the device and before normalisation."""
        self.prepare()
        assert self._compute is not None
        with torch.no_grad(), devices.exact_arithmetic(self._device, self.precision):
            return self._compute(pixels_NCHW.to(self._device))

    def encode(self, total: int, pixels_of: Callable[[int, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse [N, D], fine [T, D] and CLIP's own [N, D]; the last two have no rows where the recipe gives none.

        Args:
            total: N.
            pixels_of: ``pixels_of(start, stop)`` gives pictures [stop - start, 3, S, S], normalised, on the device.

        Raises:
            UserError: when not even one picture fits into memory.
        """

        def one_batch(start: int, stop: int) -> tuple[Tensor | None, ...]:
            count = stop - start
            padding = devices.padded_size(count, self._batch.size) - count
            vectors = self.vectors(F.pad(pixels_of(start, stop), (0, 0, 0, 0, 0, 0, 0, padding)))
            coarse, fine, clip = (None if rows is None else rows[:count] for rows in vectors)
            fine = None if fine is None else fine.flatten(0, 1)
            return tuple(unit_rows(rows, self.precision) for rows in (coarse, fine, clip))

        coarse, fine, clip = join_rows(list(self._batch.map(one_batch, total)), kinds=3, dim=self._dim)
        return coarse, fine, clip
