"""The golden set: a tiny CLIP and what the published code computed with it (see golden/README.md).

``TAI_GOLDEN=<folder>`` names another set, of other sizes and settings: nothing here or in the tests assumes this one.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

FOLDER = Path(os.environ.get("TAI_GOLDEN") or Path(__file__).parent / "golden")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class GoldenSet:
    """The expected values by name (golden/README.md) and the settings they were computed with."""

    values: dict[str, Tensor]
    image_size: int
    n_ctx: int
    class_specific_contexts: bool
    k: float
    tau_image: float
    tau_text: float

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118  (not a dict)


@cache
def golden_set() -> GoldenSet:
    values, settings = _read(FOLDER / "expected.safetensors")
    return GoldenSet(
        values=values,
        image_size=int(settings["image_size"]),
        n_ctx=int(settings["n_ctx"]),
        class_specific_contexts=settings["class_specific_contexts"] == "true",
        k=float(settings["k"]),
        tau_image=float(settings["tau_image"]),
        tau_text=float(settings["tau_text"]),
    )


@dataclass(frozen=True)
class GoldenScores:
    """Unit rows and class vectors as the scoring kernels take them, and the published scores.

    ``offsets`` is None where every item has the same number of rows (then ``fine`` is [N, L, D]).
    """

    name: str
    coarse: Tensor
    fine: Tensor
    offsets: Tensor | None
    class_global: Tensor
    class_local: Tensor
    temperature: float
    scale: float
    coarse_scores: Tensor
    fine_scores: Tensor


def golden_scores() -> Iterator[GoldenScores]:
    """The images, and the sentences without the padding that the published code masks."""
    golden = golden_set()
    classes = [normalize(golden[f"class_{kind}"], dim=-1) for kind in ("global", "local")]
    # A sentence's rows reach from its start to its end token, which has the largest id.
    lengths = golden["sentence_tokens"].argmax(dim=1) + 1
    rows = torch.cat([f[:n] for f, n in zip(golden["sentence_token_features"], lengths.tolist(), strict=True)])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    for name, coarse, fine, bounds, temperature in (
        ("image", golden["image_global_no_pos"], golden["image_patches"], None, golden.tau_image),
        ("sentence", golden["sentence_global"], rows, offsets, golden.tau_text),
    ):
        yield GoldenScores(
            name,
            normalize(coarse, dim=-1),
            normalize(fine, dim=-1),
            bounds,
            *classes,
            temperature,
            golden.k,
            golden[f"{name}_logits_global"],
            golden[f"{name}_logits_local"],
        )


def golden_state_dict() -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's weights with the token embedding in full, and the file's settings."""
    state, settings = _read(FOLDER / "clip_rn_tiny.safetensors")
    rows, values = state.pop("token_embedding.rows"), state.pop("token_embedding.values")
    embedding = torch.zeros(49408, values.shape[1])
    embedding[rows] = values
    state["token_embedding.weight"] = embedding
    return state, settings


def write_golden_model(folder: Path) -> str:
    """Write the golden model as open_clip keeps one in a folder; returns its name, ``local-dir:<folder>``."""
    state, settings = golden_state_dict()
    text_width = state["ln_final.weight"].shape[0]
    layers = [len({k.split(".")[2] for k in state if k.startswith(f"visual.layer{i}.")}) for i in (1, 2, 3, 4)]
    config = {
        "embed_dim": state["text_projection"].shape[1],
        "quick_gelu": settings["quick_gelu"] == "true",
        "vision_cfg": {
            "image_size": int(settings["image_size"]),
            "layers": layers,
            "width": state["visual.layer1.0.conv1.weight"].shape[0],
        },
        "text_cfg": {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": len({k.split(".")[2] for k in state if k.startswith("transformer.resblocks.")}),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"local-dir:{folder}"


def golden_dual_vectors(golden_model: str) -> tuple[Tensor, Tensor]:
    """[C, D] unit rows of presence and of absence, from the golden contexts."""
    from tai_engine.encoders import load_encoder
    from tai_engine.prompts.tokens import PromptTokens
    from tai_engine.prompts.tower import PromptTower

    golden = golden_set()
    rows, ends = golden["prompt_tokens"], golden["prompt_tokens"].argmax(dim=1).tolist()
    tokens = PromptTokens(
        start=(int(rows[0, 0]),),
        names=tuple(tuple(row[1 + golden.n_ctx : end - 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        ends=tuple(tuple(row[end - 1 : end + 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        placeholder=int(rows[0, 1]),
        padding=int(rows[0, -1]),
        context_length=rows.shape[1],
        labels=tuple(f"class {c}" for c in range(len(rows))),
    )
    contexts = [golden["dual_ctx_positive"], golden["dual_ctx_negative"]]
    model = load_encoder(golden_model, device="cpu", precision="fp32").model
    tower = PromptTower(model, tokens, n_contexts=contexts[0].shape[-2], class_specific=contexts[0].ndim == 3)
    positive, negative = (normalize(tower(c), dim=1) for c in contexts)
    return positive, negative
