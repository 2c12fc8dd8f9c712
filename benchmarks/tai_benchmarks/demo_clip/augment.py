"""Changes to single drawings that carry what is learned from a few drawing styles over to others.

Shape is what the styles share; colour, outline, shading and texture are not, so those are what varies here.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from tai_engine.demo.scenes import shift_colours
from tai_engine.demo.sprites import Sprite


def fill_holes(alpha_HW: np.ndarray) -> np.ndarray:
    """[H, W] bool: what is visible and every hole in it that the border cannot reach."""
    visible = np.pad(alpha_HW >= 96, 1)
    outside = np.zeros_like(visible)
    outside[0], outside[-1], outside[:, 0], outside[:, -1] = True, True, True, True
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= ~visible
        grown |= outside
        if (grown == outside).all():
            return ~outside[1:-1, 1:-1]
        outside = grown


class StyleAugmentation:
    """Draws one sprite in a random style of its own; a ``SpriteEffect`` of the scene generator.

    Line drawings get random colours of line and filling first. Keeps one filled silhouette per line drawing, and the
    last few results of each sprite: some are shown again in another size, which halves the work.

    Args:
        share: how often a drawing's style is changed at all; else only its colours shift a little.
        reuse: how often a kept result is shown in place of a new one.
    """

    def __init__(self, share: float = 1.0, reuse: float = 0.5) -> None:
        self.share, self.reuse = share, reuse
        self._silhouettes: dict[int, Image.Image] = {}
        self._results: dict[int, deque[Image.Image]] = {}

    def __call__(self, rng: np.random.Generator, drawing: Image.Image, sprite: Sprite) -> Image.Image:
        """The changed drawing (RGBA); it may be a few pixels larger where an outline was added."""
        if rng.random() >= self.share and not sprite.monochrome:
            return shift_colours(rng, drawing, 0.5)
        results = self._results.setdefault(id(sprite), deque(maxlen=4))
        if results and rng.random() < self.reuse:
            kept = results[int(rng.integers(len(results)))]
            return kept if kept.size == drawing.size else kept.resize(drawing.size, Image.Resampling.BILINEAR)
        if sprite.monochrome:
            drawing = self._coloured_lines(rng, drawing, sprite)
        drawing = _recoloured(rng, drawing)
        if rng.random() < 0.2:
            drawing = _smoothed(drawing, float(rng.uniform(0.5, 1.6)))
        if rng.random() < 0.55:
            drawing = _shaded(rng, drawing)
        if rng.random() < 0.25:
            drawing = _outlined(rng, drawing)
        if rng.random() < 0.15:
            drawing = _erased(rng, drawing)
        results.append(drawing)
        return drawing

    def _coloured_lines(self, rng: np.random.Generator, drawing: Image.Image, sprite: Sprite) -> Image.Image:
        key = id(sprite)
        if key not in self._silhouettes:
            filled = fill_holes(np.asarray(sprite.image.getchannel("A")))
            self._silhouettes[key] = Image.fromarray(filled.astype(np.uint8) * 255)
        line = _colour(rng)
        if rng.random() < 0.5:  # keep the set's own second colour, if it has one
            lines = Image.new("RGB", drawing.size, line)
        else:
            lines = Image.blend(drawing.convert("RGB"), Image.new("RGB", drawing.size, line), 0.6)
        lines.putalpha(drawing.getchannel("A"))
        if rng.random() < 0.3:
            return lines
        filling = Image.new("RGB", drawing.size, _colour(rng))
        filling.putalpha(self._silhouettes[key].resize(drawing.size, Image.Resampling.BILINEAR))
        filling.alpha_composite(lines)
        return filling


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue


def _recoloured(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Change the colours: a little, strongly, to grey, to two colours of a ramp, or by swapping channels."""
    alpha = drawing.getchannel("A")
    chance = rng.random()
    if chance < 0.10:
        coloured = drawing.convert("L").convert("RGB")
    elif chance < 0.20:
        ramp = np.linspace(_colour(rng), _colour(rng), 256).T.astype(int).reshape(-1).tolist()
        coloured = Image.merge("RGB", [drawing.convert("L")] * 3).point(ramp)
    elif chance < 0.30:
        bands = [drawing.getchannel(int(channel)) for channel in rng.permutation(3)]
        coloured = Image.merge("RGB", bands)
    elif chance < 0.34:
        coloured = ImageChops.invert(drawing.convert("RGB"))
    else:
        return shift_colours(rng, drawing, float(rng.choice([0.5, 0.8, 1.6])))
    coloured.putalpha(alpha)
    return shift_colours(rng, coloured, 0.6)


def _smoothed(drawing: Image.Image, radius: float) -> Image.Image:
    """Blur the colours within the drawing; its edge stays sharp."""
    blurred = drawing.convert("RGB").filter(ImageFilter.GaussianBlur(radius))
    blurred.putalpha(drawing.getchannel("A"))
    return blurred


def _shaded(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Light the drawing as if it were round: a light gradient, a bevel from its blurred alpha, a highlight.

    The height of the surface is the alpha, blurred; the slope towards the light brightens, away from it darkens.
    """
    width, height = drawing.size
    pixels = np.asarray(drawing, dtype=np.float32)
    angle = float(rng.uniform(0, 2 * math.pi)) if rng.random() < 0.3 else float(rng.normal(-math.pi / 2, 0.6))
    across, down = math.cos(angle), math.sin(angle)
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    light = 1.0 + float(rng.uniform(0, 0.35)) * (across * xs + down * ys)
    add = np.zeros((height, width), dtype=np.float32)
    if rng.random() < 0.7:
        radius = float(rng.uniform(0.04, 0.16)) * max(width, height)
        padded = Image.new("L", (width + 16, height + 16))
        padded.paste(drawing.getchannel("A"), (8, 8))
        surface = np.asarray(padded.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
        slope_down, slope_across = np.gradient(surface, axis=0), np.gradient(surface, axis=1)
        slope = -(across * slope_across + down * slope_down)[8:-8, 8:-8]
        slope /= max(1.0, float(np.abs(slope).max()))
        light -= float(rng.uniform(0.1, 0.6)) * slope
        if rng.random() < 0.5:  # a rim of another light colour's strength
            add += float(rng.uniform(10, 70)) * np.clip(-slope, 0, 1) ** 2
    if rng.random() < 0.5:
        centre_x, centre_y = rng.uniform(-0.6, 0.6, size=2) + 0.3 * np.array([across, down])
        spread = float(rng.uniform(0.08, 0.5))
        spot = np.exp(-((xs - centre_x) ** 2 + (ys - centre_y) ** 2) / (2 * spread**2))
        add += float(rng.uniform(20, 130)) * spot.astype(np.float32)
    shaded = pixels[..., :3] * light[..., None] + add[..., None]
    pixels = np.concatenate([np.clip(shaded, 0, 255), pixels[..., 3:]], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def _outlined(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Put a line of one to two pixels around the drawing: dark, white or coloured."""
    width = int(rng.integers(1, 3))
    larger = Image.new("RGBA", (drawing.width + 2 * width, drawing.height + 2 * width))
    larger.paste(drawing, (width, width))
    edge = larger.getchannel("A").filter(ImageFilter.MaxFilter(2 * width + 1))
    shade = int(rng.integers(0, 60)) if rng.random() < 0.5 else 255
    line = Image.new("RGB", larger.size, (shade, shade, shade) if rng.random() < 0.7 else _colour(rng))
    line.putalpha(edge)
    line.alpha_composite(larger)
    return line


def _erased(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Cut a rectangle of up to two fifths of each side out of the drawing, as something before it would."""
    width, height = drawing.size
    wide, high = (max(1, int(side * rng.uniform(0.15, 0.4))) for side in (width, height))
    left, top = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - high + 1))
    drawing = drawing.copy()
    drawing.paste((0, 0, 0, 0), (left, top, left + wide, top + high))
    return drawing


def degrade(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Blur, recompress or recolour a whole RGB scene, each now and then."""
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.0))))
    if rng.random() < 0.2:
        gain, offset = float(rng.uniform(0.6, 1.3)), float(rng.uniform(-30, 30))
        image = image.point([int(min(255, max(0, gain * value + offset))) for value in range(256)] * 3)
    if rng.random() < 0.1:
        small = max(8, round(image.width * float(rng.uniform(0.5, 0.9))))
        image = image.resize((small, small), Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)
    return image
