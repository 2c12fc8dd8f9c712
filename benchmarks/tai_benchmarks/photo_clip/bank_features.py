"""The last map of the image tower for every photograph, computed once and kept in parts.

Shape legend: N photographs, S pixels a side, L = ceil(S / 32)² locations, E = 1280 features.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tai_benchmarks.photo_clip.image_tower import MEAN, STD, WIDTH, fold_batch_norms, load_tower
from tai_engine.errors import UserError
from tai_engine.files import atomic_path

PART = 512
_BATCH = 16

Run = Callable[[np.ndarray], np.ndarray]


def photograph_names(folder: Path) -> tuple[str, ...]:
    """Names of the JPEG files, sorted.

    Raises:
        UserError: if there is none.
    """
    names = tuple(sorted(path.name for path in folder.glob("*.jpg")))
    if not names:
        raise UserError(f"There are no photographs (*.jpg) in {folder}.")
    return names


def read_pixels(path: Path, size: int) -> np.ndarray:
    """[3, S, S] fp32, normalised as the tower wants it: shortest side to S, the middle cut out."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32)
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


def tower_runner(weights: Path, size: int) -> Run:
    """A function from pixels [B, 3, S, S] to maps [B, E, H, W] fp32: OpenVINO's where it is installed, else torch's."""
    model = fold_batch_norms(load_tower(weights))
    if importlib.util.find_spec("openvino") is not None:
        return _openvino_runner(model, size)
    model = model.to(memory_format=torch.channels_last)

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
            result: np.ndarray = model.forward_features(batch).contiguous().numpy()  # type: ignore[operator]
        return result

    return run


class _Trunk(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.model.forward_features(pixels)  # type: ignore[operator]
        return maps


def _openvino_runner(model: nn.Module, size: int) -> Run:
    openvino = importlib.import_module("openvino")
    graph = openvino.convert_model(
        _Trunk(model).eval(), example_input=torch.zeros(2, 3, size, size), input=[-1, 3, size, size]
    )
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: np.asarray(compiled(pixels)[0])


def extract_features(
    photographs: Path, names: Sequence[str], weights: Path, size: int, out: Path, remark: Callable[[str], None]
) -> None:
    """Write ``out/00000.npy`` and so on, [512, L, E] fp16 each; parts that are there already are kept.

    Memory: one part.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = [first for first in range(0, len(names), PART) if not _part(out, first).exists()]
    if not missing:
        return
    run = tower_runner(weights, size)
    with ThreadPoolExecutor(2) as pool:
        for first in missing:
            paths = [photographs / name for name in names[first : first + PART]]
            rows = np.concatenate(list(_maps(paths, size, run, pool)))
            with atomic_path(_part(out, first)) as temporary, temporary.open("wb") as file:
                np.save(file, rows)
            remark(f"features of {first + len(paths)} of {len(names)} photographs")


def _part(folder: Path, first: int) -> Path:
    return folder / f"{first:05d}.npy"


def _maps(paths: Sequence[Path], size: int, run: Run, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    """fp16 [B, L, E], batch by batch; the next one is decoded while one is computed."""
    batches = [paths[first : first + _BATCH] for first in range(0, len(paths), _BATCH)]
    read = partial(read_pixels, size=size)
    waiting = [pool.submit(read, path) for path in batches[0]]
    for following in [*batches[1:], []]:
        pixels = np.ascontiguousarray(np.stack([future.result() for future in waiting]))
        waiting = [pool.submit(read, path) for path in following]
        maps = run(pixels)
        yield maps.reshape(len(maps), WIDTH, -1).transpose(0, 2, 1).astype(np.float16)


def read_parts(folder: Path) -> Iterator[torch.Tensor]:
    """The parts in order: [512, L, E] fp16, the last one shorter."""
    for path in sorted(folder.glob("*.npy")):
        yield torch.from_numpy(np.load(path))
