"""Every mode of Pillow to RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from tai_engine.errors import ItemError


def to_rgb(image: Image.Image, alpha: str) -> Image.Image:
    """The picture in mode RGB; the one that was given if it is that already."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        turned = ImageCms.applyTransform(image, to_srgb)
        if turned is None:  # only for transforms in place
            raise ItemError("broken", "its LAB colours cannot be converted")
        return turned
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    ground = Image.new("RGB", image.size, alpha)
    ground.paste(rgba, mask=rgba.getchannel("A"))
    return ground


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """[height, width] uint8 of a picture with wider samples, by the rule in `decode_image`."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    if image.mode == "F":
        tops: tuple[float, ...] = (1.0, 255.0)
    else:
        tops = (65535.0,) if image.format == "PPM" else (255.0, 65535.0)
    top = next((t for t in tops if low >= 0 and high <= t), None)
    shift, span = (low, high - low) if top is None else (0.0, top)
    scaled = np.where(finite, (values.astype(np.float64) - shift) * (255.0 / (span or 1.0)), 0.0)
    return np.rint(scaled).astype(np.uint8)
