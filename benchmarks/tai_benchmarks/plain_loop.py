"""open_clip's plain loop over a folder, as its users write it: a data loader, `encode_image`, an array on disk.

    python -m tai_benchmarks.plain_loop PICTURES OUT MODEL WEIGHTS

The baseline of `folder_contest`; it has no part in the engine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

_BATCH, _WORKERS = 32, 2


class PicturesOfFolder(Dataset[Tensor]):
    """Preprocessed pictures [3, S, S] of a folder, in the order of their names."""

    def __init__(self, folder: Path, transform: open_clip.transform.Compose) -> None:
        self._paths = sorted(folder.iterdir())
        self._transform = transform

    def __len__(self) -> int:
        """Pictures."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """One of them."""
        pixels: Tensor = self._transform(Image.open(self._paths[index]))
        return pixels


def main(pictures: str, out: str, model: str, weights: str) -> None:
    """Encode them, and write ``OUT/features.npy``, [N, D] fp16 unit rows."""
    clip, _, transform = open_clip.create_model_and_transforms(model, pretrained=weights)
    clip.eval()
    loader = DataLoader(PicturesOfFolder(Path(pictures), transform), batch_size=_BATCH, num_workers=_WORKERS)
    rows = []
    with torch.no_grad():
        for pixels in loader:
            features = clip.encode_image(pixels)
            rows.append((features / features.norm(dim=-1, keepdim=True)).half().numpy())
    Path(out).mkdir()
    np.save(Path(out) / "features.npy", np.concatenate(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
