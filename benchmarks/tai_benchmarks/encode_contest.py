"""Those who encode pictures in `bench_encode`: one model with random weights, open_clip's way and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tai_engine.decoding.decode import decode_image
from tai_engine.encoders import Encoder
from tai_engine.encoders.devices import resolve_precision
from tai_engine.encoders.fast.gate import LEAST_COSINE, gate_pictures
from tai_engine.encoders.keys import weights_digest
from tai_engine.encoders.loading import LoadedModel
from tai_engine.encoders.weights import ModelFiles
from tai_engine.features import FeatureBatch

BASELINE = "open_clip"
COMPUTES = {
    BASELINE: "coarse",
    "tai-exact": "coarse and patches",
    "tai-coarse": "coarse",
    "tai": "coarse and patches",
}
"""What each candidate makes of a picture."""


class WrongFeaturesError(RuntimeError):
    """Our features are not those of the exact model."""


class EncodeContest:
    """One model with random weights and all who encode with it.

    Memory: the weights twice, and those of the fast towers.
    """

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        config = open_clip.get_model_config(name)
        if config is None:
            raise ValueError(f"open_clip has no model {name!r}")
        self.device = device
        self._size = int(config["vision_cfg"]["image_size"])
        self._batch = batch
        self._plain = random_model(config).to(device)
        self._encoders = {
            "tai-exact": _encoder(config, batch, device, fast=False, dense="auto", coarse="auto"),
            "tai-coarse": _encoder(config, batch, device, fast=True, dense="none", coarse="clip"),
            "tai": _encoder(config, batch, device, fast=True, dense="auto", coarse="auto"),
        }

    def on_tensors(self) -> dict[str, Callable[[], object]]:
        """Everybody's work on the same normalised pictures in memory."""
        pixels = self._pixels(self._batch)
        ids = [str(i) for i in range(self._batch)]
        works: dict[str, Callable[[], object]] = {BASELINE: lambda: self.plain(pixels)}
        for name, encoder in self._encoders.items():
            works[name] = _bound(encoder, pixels, ids)
        return works

    def on_files(self, paths: list[Path]) -> dict[str, Callable[[], object]]:
        """Everybody's work on picture files, decoding and preprocessing included."""
        transform = image_transform_v2(PreprocessCfg(size=self._size), is_train=False)
        ids = [path.name for path in paths]

        def plain() -> Tensor:
            return self.plain(torch.stack([transform(Image.open(path)) for path in paths]))

        def ours(encoder: Encoder) -> Callable[[], FeatureBatch]:
            return lambda: encoder.encode_images([decode_image(path) for path in paths], ids)

        return {BASELINE: plain} | {name: ours(encoder) for name, encoder in self._encoders.items()}

    def plain(self, pixels: Tensor) -> Tensor:
        """[N, D] unit vectors on the CPU, as users of open_clip write it."""
        with torch.no_grad():
            features = self._plain.encode_image(pixels.to(self.device))
            return (features / features.norm(dim=-1, keepdim=True)).cpu()

    def check(self) -> dict[str, float]:
        """By candidate, the lowest cosine of its rows to fp32: CLIP's vectors to open_clip's, the rest to the exact.

        Raises:
            WrongFeaturesError: for a cosine below that of the gate, or features that did not pass it.
        """
        pixels = self._pixels(min(self._batch, 4))
        clip = self.plain(pixels)
        batches = {
            name: encoder.encode_normalised(pixels, [str(i) for i in range(len(pixels))])
            for name, encoder in self._encoders.items()
        }
        exact = batches["tai-exact"]
        cosines = {BASELINE: 1.0}
        for name, batch in batches.items():
            own = batch.coarse if batch.coarse_clip is None else batch.coarse_clip
            pairs = [(own, clip)]
            if name == "tai":
                pairs += [(batch.coarse, exact.coarse), (batch.fine, exact.fine)]
            cosines[name] = min(float(F.cosine_similarity(a.double(), b.double()).min()) for a, b in pairs)
            wanted = "exact" if name == "tai-exact" else "fast"
            tower = self._encoders[name].provenance["image_tower"]
            if not cosines[name] >= LEAST_COSINE or tower != wanted:
                raise WrongFeaturesError(f"features of {name} ({tower}) have a cosine of {cosines[name]} to fp32")
        return cosines

    def flops_per_picture(self) -> float:
        """Of open_clip's own computation, a multiplication and an addition being two.

        Only convolutions and matrix products are counted, whose formulas every version of torch has.
        """
        with unfused_attention(), FlopCounterMode(display=False) as counter:
            self.plain(self._pixels(1))
        return float(counter.get_total_flops())

    def precision_of(self, name: str) -> str:
        """In which a candidate computes."""
        return "fp32" if name == BASELINE else self._encoders[name].image_precision

    def _pixels(self, count: int) -> Tensor:
        drawn = gate_pictures(self._size)
        return torch.cat([drawn.roll(31 * i, -1) for i in range(-(-count // len(drawn)))])[:count].contiguous()


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention is computed by plain matrix products: not every version's counter of operations knows fused kernels."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def random_model(config: Mapping[str, Any]) -> Any:
    """open_clip's model with the same random weights each time, batch norms included, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**config)
        for module in model.visual.modules():
            if isinstance(module, nn.BatchNorm2d):  # as made they do nothing, and the last of each block is zero
                assert module.running_mean is not None
                assert module.running_var is not None
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.normal_(0, 0.1)
    return model.eval().requires_grad_(False)


def _encoder(
    config: dict[str, Any], batch: int, device: torch.device, *, fast: bool, dense: str, coarse: str
) -> Encoder:
    model = random_model(config)
    tokenizer = open_clip.SimpleTokenizer()
    size = int(config["vision_cfg"]["image_size"])
    precision, image_precision = resolve_precision("auto", device, fast)
    loaded = LoadedModel(model, tokenizer, 77, 0, False, config, size)
    return Encoder(
        loaded,
        ModelFiles("random", "", config, {}, Path("random")),
        weights_digest(model.visual),
        device=device,
        precision=precision,
        image_precision=image_precision,
        image_size=size,
        dense=dense,
        coarse=coarse,
        batch_size=batch,
        decoding={},
        fast=fast,
    )


def _bound(encoder: Encoder, pixels: Tensor, ids: list[str]) -> Callable[[], FeatureBatch]:
    return lambda: encoder.encode_normalised(pixels, ids)
