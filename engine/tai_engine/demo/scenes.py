"""Drawn scenes with exact truth: a few sprites on a background, seeded, the same on every machine.

Scene ``i`` of a generator depends on its settings, the seed and ``i`` alone, so that any part of a series can be drawn
in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tai_engine.demo.sprites import Sprite, SpriteSheet
from tai_engine.errors import UserError

SpriteEffect = Callable[[np.random.Generator, Image.Image, Sprite], Image.Image]
"""Changes an RGBA drawing before it is rotated and placed: ``(random generator, drawing, its sprite) -> drawing``.

An effect that remembers earlier drawings makes scenes depend on the ones drawn before.
"""

_VISIBLE = 96  # alpha from which a pixel belongs to an object
_VISIBLE_TABLE = [255 if alpha >= _VISIBLE else 0 for alpha in range(256)]


@dataclass(frozen=True)
class SceneObject:
    """One drawn thing: its class and its box ``(left, top, right, bottom)`` in pixels, right and bottom exclusive."""

    class_name: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and the truth about it.

    Attributes:
        image: RGB.
        objects: what is drawn, from back to front.
        owner: uint8 [height, width]; 0 where the background shows, ``i + 1`` where ``objects[i]`` does.
    """

    image: Image.Image
    objects: tuple[SceneObject, ...]
    owner: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the picture, sorted, each once."""
        return tuple(sorted({thing.class_name for thing in self.objects}))


class SceneGenerator:
    """Draws scenes of 1 to 4 sprites of random size, rotation, colour and place on a random background.

    Classes are drawn with equal chance, then one of the class's sprites. Memory: the sprites and one scene.

    Args:
        sheets: the drawing styles to choose from.
        image_size: pixels of each side.
        seed: of the whole series.
        objects: least and most sprites in one scene.
        size_range: least and greatest long side of a sprite, as a part of the image size.
        rotation: greatest rotation to either side, in degrees.
        shear: greatest shear (tangent) and stretch (logarithm) to either side.
        colour: strength of the colour changes, 0 for none.
        effect: further change to each drawing, in place of the plain colour change.
        style_weights: how often each sheet is chosen for a class it draws (default: equally).
    """

    def __init__(
        self,
        sheets: Sequence[SpriteSheet],
        *,
        image_size: int = 128,
        seed: int = 0,
        objects: tuple[int, int] = (1, 4),
        size_range: tuple[float, float] = (0.3, 0.6),
        rotation: float = 20.0,
        shear: float = 0.0,
        colour: float = 0.5,
        effect: SpriteEffect | None = None,
        style_weights: Sequence[float] | None = None,
    ) -> None:
        if not any(sheet.sprites for sheet in sheets):
            raise UserError("The scene generator got no sprites; give it at least one sprite sheet that is not empty.")
        if image_size < 32:
            raise UserError(
                f"Scenes of {image_size} pixels are too small for sprites; take an image size of 32 or more."
            )
        if not 1 <= objects[0] <= objects[1] <= 250:
            raise UserError(
                f"A scene cannot hold {objects[0]} to {objects[1]} objects; give 1 <= least <= most <= 250."
            )
        self.image_size, self.seed, self.objects = image_size, seed, objects
        self.size_range, self.rotation, self.shear = size_range, rotation, shear
        self.colour, self.effect = colour, effect
        weights = style_weights or [1.0] * len(sheets)
        self._by_class: dict[str, list[tuple[float, tuple[Sprite, ...]]]] = {}
        for sheet, weight in zip(sheets, weights, strict=True):
            for class_name in sheet.class_names:
                drawings = tuple(sprite for sprite in sheet.sprites if sprite.class_name == class_name)
                self._by_class.setdefault(class_name, []).append((weight, drawings))
        self.class_names = tuple(sorted(self._by_class))

    def scene(self, index: int) -> Scene:
        """Draw scene number ``index`` of the series."""
        rng = np.random.default_rng([self.seed, index])
        size = self.image_size
        canvas = random_background(rng, size)
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        names = [self.class_names[i] for i in rng.integers(len(self.class_names), size=count)]
        owner = Image.new("L", (size, size))
        placed: list[tuple[int, int, int, int]] = []
        drawn: list[str] = []
        for class_name in names:
            drawing = self._drawing(rng, class_name, count)
            corner = _free_corner(rng, drawing.size, size, placed)
            canvas.paste(drawing, corner, drawing)
            drawn.append(class_name)
            placed.append((*corner, corner[0] + drawing.width, corner[1] + drawing.height))
            mask = drawing.getchannel("A").point(_VISIBLE_TABLE)
            owner.paste(len(drawn), corner, mask)
        amplitude = int(rng.integers(0, 13))
        pixels = np.asarray(canvas, dtype=np.int16)
        pixels = pixels + rng.integers(-amplitude, amplitude + 1, size=pixels.shape, dtype=np.int16)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        things = tuple(SceneObject(name, box) for name, box in zip(drawn, placed, strict=True))
        return Scene(image, things, np.asarray(owner))

    def scenes(self, count: int, start: int = 0) -> Iterator[Scene]:
        """Draw ``count`` scenes, from number ``start`` on, one at a time."""
        return (self.scene(index) for index in range(start, start + count))

    def _drawing(self, rng: np.random.Generator, class_name: str, count: int) -> Image.Image:
        """Choose a sprite of the class; return it sized, coloured, rotated, cut to its visible box."""
        styles = self._by_class[class_name]
        weights = np.array([weight for weight, _ in styles])
        drawings = styles[int(rng.choice(len(styles), p=weights / weights.sum()))][1]
        sprite = drawings[int(rng.integers(len(drawings)))]
        low, high = self.size_range
        if count > 2:
            high = max(low, high - 0.1)
        longest = rng.uniform(low, high) * self.image_size
        scale = longest / max(sprite.image.size)
        width, height = (max(2, round(side * scale)) for side in sprite.image.size)
        drawing = sprite.image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        drawing = self.effect(rng, drawing, sprite) if self.effect else shift_colours(rng, drawing, self.colour)
        drawing = _turned(rng, drawing, self.rotation, self.shear)
        drawing = drawing.crop(drawing.getchannel("A").point(_VISIBLE_TABLE).getbbox())
        if max(drawing.size) > self.image_size:
            drawing.thumbnail((self.image_size, self.image_size))
        return drawing


def _turned(rng: np.random.Generator, drawing: Image.Image, rotation: float, shear: float) -> Image.Image:
    """Mirror, stretch, shear and rotate a drawing in one affine map onto a canvas that holds all of it."""
    angle = math.radians(float(rng.uniform(-rotation, rotation)))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    slant, stretch = (float(value) for value in rng.uniform(-shear, shear, size=2)) if shear > 0 else (0.0, 0.0)
    cosine, sine = math.cos(angle), math.sin(angle)
    forward = np.array([[cosine, -sine], [sine, cosine]]) @ np.array(
        [[mirror * math.exp(stretch), slant], [0.0, math.exp(-stretch)]]
    )
    width, height = drawing.size
    extent = np.abs(forward) @ np.array([width, height])
    size = (max(1, math.ceil(extent[0])), max(1, math.ceil(extent[1])))
    back = np.linalg.inv(forward)
    shift = np.array([width / 2, height / 2]) - back @ (np.array(size) / 2)
    affine = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    return drawing.transform(size, Image.Transform.AFFINE, tuple(map(float, affine)), Image.Resampling.BILINEAR)


def _free_corner(
    rng: np.random.Generator, wanted: tuple[int, int], size: int, placed: list[tuple[int, int, int, int]]
) -> tuple[int, int]:
    """The top-left corner, of 12 random ones, where the new box covers the earlier ones least."""
    best, least = (0, 0), math.inf
    corners = rng.random(size=(12, 2)) * (size - wanted[0] + 1, size - wanted[1] + 1)
    for left, top in corners.astype(int).tolist():
        worst = 0.0
        for box in placed:
            across = min(box[2], left + wanted[0]) - max(box[0], left)
            down = min(box[3], top + wanted[1]) - max(box[1], top)
            if across > 0 and down > 0:
                smaller = min((box[2] - box[0]) * (box[3] - box[1]), wanted[0] * wanted[1])
                worst = max(worst, across * down / smaller)
        if worst < least:
            best, least = (left, top), worst
        if worst <= 0.05:
            break
    return best


def shift_colours(rng: np.random.Generator, drawing: Image.Image, strength: float) -> Image.Image:
    """Turn the hue and change saturation, contrast and brightness of an RGBA drawing by one random affine map.

    The hue turn is a rotation about the grey axis of RGB (Rodrigues' formula), by up to ``strength`` x 60 degrees.
    """
    if strength <= 0:
        return drawing
    angle = float(rng.normal(0.0, strength * math.pi / 6))
    saturation = float(rng.uniform(1 - 0.6 * strength, 1 + 0.6 * strength))
    gain = float(rng.uniform(1 - 0.4 * strength, 1 + 0.3 * strength))
    offset = float(rng.uniform(-40, 40)) * strength
    cosine, sine = math.cos(angle), math.sin(angle)
    same, third, cross = cosine, (1 - cosine) / 3, sine / math.sqrt(3)
    turn = np.array(
        [
            [same + third, third - cross, third + cross],
            [third + cross, same + third, third - cross],
            [third - cross, third + cross, same + third],
        ]
    )
    matrix = gain * (saturation * turn + (1 - saturation) / 3)
    rows = np.concatenate([matrix, np.full((3, 1), offset + 128 * (1 - gain) * 0.5)], axis=1)
    coloured = drawing.convert("RGB").convert("RGB", tuple(float(value) for value in rows.reshape(-1)))
    coloured.putalpha(drawing.getchannel("A"))
    return coloured


def random_background(rng: np.random.Generator, size: int) -> Image.Image:
    """An RGB background of ``size`` x ``size``: plain, gradient, cloudy texture, blobs or stripes."""
    kind = int(rng.integers(5))
    base = rng.integers(0, 256, size=3)
    if kind == 0:
        return Image.new("RGB", (size, size), tuple(int(value) for value in base))
    if kind == 1:
        corners = rng.integers(0, 256, size=(2, 2, 3), dtype=np.uint8)
        return Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR)
    if kind == 2:
        cells = int(rng.integers(3, 25))
        spread = int(rng.integers(10, 110))
        grid = np.clip(base + rng.integers(-spread, spread + 1, size=(cells, cells, 3)), 0, 255).astype(np.uint8)
        return Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    if kind == 3:
        cells = int(rng.integers(2, 9))
        grid = rng.integers(0, 256, size=(cells, cells, 3), dtype=np.uint8)
        blocks = Image.fromarray(grid).resize((size, size), Image.Resampling.NEAREST)
        blocks = blocks.rotate(float(rng.uniform(0, 90)), fillcolor=tuple(int(value) for value in base))
        return blocks.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 6))))
    steps = int(rng.integers(4, 20))
    stripe = np.clip(base + rng.integers(-70, 71, size=(1, steps, 3)), 0, 255).astype(np.uint8)
    stripes = Image.fromarray(stripe).resize((2 * size, 2 * size), Image.Resampling.NEAREST)
    turned = stripes.rotate(float(rng.uniform(0, 180)), Image.Resampling.BILINEAR)
    return turned.crop((size // 2, size // 2, size // 2 + size, size // 2 + size))
