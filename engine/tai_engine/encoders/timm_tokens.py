"""Vectors of the patches of timm's transformers that pool by a class token: EVA's and MobileCLIP's towers.

The last block runs a second time, its own layers around another attention (SCLIP's, Wang et al., arXiv 2312.01597, or
the value path alone), as `dense.last_block_tokens` does it for open_clip's own ViTs. timm's blocks differ in how they
make queries and keys (rotary positions, norms, sub-layer norms), and all of them hand these to one function of torch:
there the attention is exchanged, so that nothing of a block is written a second time.

Shape legend: N images, L patches, C channels, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import Tensor
from torch.overrides import TorchFunctionMode

MixValues = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values, all [N, heads, T, width of a head], to what each token gathers, of the same shape."""
_TOLERANCE = 1e-4
_PROBE_SEED = 0


class ExchangedAttention(TorchFunctionMode):
    """While it is active, attention is what ``mix`` makes of queries, keys and values.

    Attributes:
        calls: how often attention was computed.

    Raises:
        ValueError: for attention under a mask, which ``mix`` knows nothing of.
    """

    def __init__(self, mix: MixValues) -> None:
        super().__init__()
        self._mix = mix
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every function."""
        options = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **options)
        if len(args) != 3 or options.get("attn_mask") is not None or options.get("is_causal"):
            raise ValueError("the attention has a mask")
        self.calls += 1
        return self._mix(*args)


def has_class_token(visual: TimmModel) -> bool:
    """Whether the tower's vector is that of a class token."""
    return getattr(visual.trunk, "global_pool", None) == "token"


def timm_token_vectors(visual: TimmModel, pixels: Tensor, mix: MixValues) -> tuple[Tensor, Tensor]:
    """Coarse [N, D] as the model has it, and fine [N, L, D], in rows of the grid from the upper left.

    Raises:
        ValueError: for a last block whose attention cannot be exchanged.
    """
    coarse, tokens_NTC = _run_twice(visual, pixels, mix)
    patches_NLC = tokens_NTC[:, int(visual.trunk.num_prefix_tokens) :]
    # A head that takes the first token takes the only one.
    singles = patches_NLC.reshape(-1, 1, patches_NLC.shape[2])
    fine: Tensor = visual.head(visual.trunk.forward_head(singles))
    return coarse, fine.unflatten(0, (len(pixels), -1))


def no_token_recipe(visual: TimmModel, image_size: int) -> str:
    """Why a tower with a class token has no vectors of patches; empty if it has.

    One small picture is computed to see it: with the block's own attention, the second run has to give the model's own
    vector, whether the head is given all tokens or the class token alone.
    """
    parameter = next(visual.parameters())
    generator = torch.Generator().manual_seed(_PROBE_SEED)
    pixels = torch.rand(1, 3, image_size, image_size, generator=generator).to(parameter.device, parameter.dtype)
    try:
        with torch.no_grad():
            coarse, tokens_NTC = _run_twice(visual, pixels, F.scaled_dot_product_attention)
            again = [visual.head(visual.trunk.forward_head(part)) for part in (tokens_NTC, tokens_NTC[:, :1])]
    except Exception:  # towers of other makes fail in many ways
        return "the attention of its last block cannot be exchanged"
    if all(bool((found - coarse).norm() <= _TOLERANCE * coarse.norm()) for found in again):
        return ""
    return "its class token is not what its last block gives"


def patches_per_picture(visual: TimmModel, image_size: int) -> int:
    """L."""
    parameter = next(visual.parameters())
    pixels = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        tokens = visual.trunk.forward_features(pixels)
    return int(tokens.shape[1]) - int(visual.trunk.num_prefix_tokens)


def _run_twice(visual: TimmModel, pixels: Tensor, mix: MixValues) -> tuple[Tensor, Tensor]:
    """The model's own vectors [N, D], and all tokens [N, T, C] after a last block with another attention."""
    block = visual.trunk.blocks[-1]
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = block.register_forward_pre_hook(
        lambda _module, args, options: inputs.append((args, options)), with_kwargs=True
    )
    try:
        coarse: Tensor = visual(pixels)  # as the model computes it, to the last bit
    finally:
        handle.remove()
    ((args, options),) = inputs
    with ExchangedAttention(mix) as exchanged:
        tokens_NTC = block(*args, **options)
    if exchanged.calls != 1:
        raise ValueError(f"the last block computes attention {exchanged.calls} times")
    return coarse, visual.trunk.norm(tokens_NTC)
