"""The encoder: pictures and sentences to features of one embedding space.

Shape legend: N items, C classes, L fine rows per image, T fine rows of all items, D embedding size, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from PIL import Image
from torch import Tensor

from tai_engine.encoders import devices, keys
from tai_engine.encoders.dense import ImageVectors, image_recipe
from tai_engine.encoders.fast.gate import fast_tower
from tai_engine.encoders.known_words import names_with_others, read_known_words
from tai_engine.encoders.loading import LoadedModel, load_model, place_model
from tai_engine.encoders.positions import resize_image_tower
from tai_engine.encoders.preprocessing import Preprocess
from tai_engine.encoders.sentence_encoding import SentenceEncoding
from tai_engine.encoders.unit_rows import join_rows, unit_rows
from tai_engine.encoders.weights import ModelFiles, find_model
from tai_engine.features import FeatureBatch, offsets_from_counts


def load_encoder(
    model: str = "RN50",
    pretrained: str | None = "openai",
    *,
    device: str = "auto",
    precision: str = "auto",
    image_size: int | None = None,
    dense: str = "auto",
    coarse: str = "auto",
    batch_size: int = 0,
    cache_dir: str | Path | None = None,
    decoding: Mapping[str, Any] | None = None,
    fast: bool = True,
) -> Encoder:
    """Load a model of open_clip as an encoder.

    Args:
        model: an open_clip name (``RN50``), ``hf-hub:org/repo``, ``local-dir:/path`` or ``photos``, the embedded model.
        pretrained: open_clip's tag of the weights (``openai``); ignored for all other forms.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` (fp16 on CUDA; on CPUs bf16 for pictures if they have hardware for it, int16 for those of
            ResNets if they have AVX2 alone; else fp32), ``fp32``, ``bf16`` or ``fp16``. Features are fp32 in any case.
        image_size: pixels a side; None is the model's own. Positional embeddings are interpolated for another one.
        dense: patches by the recipe of the tower (``auto``), by the value path (``value``), or ``none``.
        coarse: ``auto`` is TaI-DPT's image vector for ResNets; ``clip`` is CLIP's own for all.
        batch_size: items at a time; 0 is automatic. Halved when memory runs out.
        cache_dir: folder of downloaded weights; None is the Hugging Face cache.
        decoding: how pictures are decoded before they come here, to be part of the recipe.
        fast: encode pictures by a tower rewritten for the device, if its features have a cosine of 0.999 or more to the
            exact ones, which is found out when the first pictures come. False is the tower as open_clip has it, in fp32
            unless another precision is asked for.

    Raises:
        UserError: for an unknown or missing model, weights, device, precision, image size or recipe.
    """
    # What can be wrong without reading gigabytes comes first.
    torch_device = devices.resolve_device(device)
    model_precision, image_precision = devices.resolve_precision(precision, torch_device, fast)
    files = find_model(model, pretrained, cache_dir)
    loaded = load_model(files, cache_dir)
    digest = keys.weights_digest(loaded.model)
    size = loaded.image_size if image_size is None else image_size
    resize_image_tower(loaded.model.visual, size)
    return Encoder(
        loaded,
        files,
        digest,
        device=torch_device,
        precision=model_precision,
        image_precision=image_precision,
        image_size=size,
        dense=dense,
        coarse=coarse,
        batch_size=batch_size,
        decoding=decoding or {},
        fast=fast,
    )


class Encoder:
    """One model on one device. Made by `load_encoder`.

    All features leave on the CPU in fp32 with rows of unit length. Batches of pictures are padded to a few shapes, so
    that the same slice of pictures gives the same bits whenever it is encoded. Memory: the items and features of one
    call and the activations of one batch, and for the fast tower its own weights; callers stream large collections
    through it in pieces.

    Attributes:
        model: the open_clip model itself on ``device``, in ``precision``; with a fast tower, its image tower in fp32.
        space_key: of the embedding space (architecture, tokenizer, weights).
        recipe, recipe_key: how images become features.
        sentence_recipe, sentence_recipe_key: how sentences do.
        dim: D.
        image_size: S, pixels.
        rows_per_image: L, or 0 without patches.
        context_length: tokens of the longest sentence, 77 for CLIP.
        has_coarse_clip: whether image features carry CLIP's own vector beside TaI-DPT's.
        has_fine_sentences: whether sentence features have token rows.
        device: where it computes.
        precision: ``fp32``, ``bf16`` or ``fp16``, of sentences.
        image_precision: the same of pictures, or ``int16``.
        logit_scale: CLIP's learned factor before the softmax, e.g. 100.
        provenance: model, weights, precision and versions, for the record.
        preprocess: PIL picture (RGB) to uint8 [3, S, S]; picklable.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        files: ModelFiles,
        weights_digest: str,
        *,
        device: torch.device,
        precision: str,
        image_precision: str,
        image_size: int,
        dense: str,
        coarse: str,
        batch_size: int,
        decoding: Mapping[str, Any],
        fast: bool,
    ) -> None:
        visual = loaded.model.visual
        self._recipe = image_recipe(visual, image_size, dense, coarse)
        self._image_batch = devices.image_batch(batch_size, device, image_size)
        self._wants_fast = fast
        self._image_compute: Callable[[Tensor], ImageVectors] | None = None
        self.preprocess = Preprocess(files.preprocess, image_size)
        self.device = device
        self.precision = precision
        self.image_precision = image_precision
        self.image_size = image_size
        self.dim = int(loaded.config["embed_dim"])
        self.context_length = loaded.context_length
        self.rows_per_image = self._recipe.rows_per_image
        self.has_coarse_clip = self._recipe.coarse == "no-position"
        self.logit_scale = float(loaded.model.logit_scale.exp().max())
        self.space_key = keys.space_key(loaded.config, weights_digest)
        self.model = place_model(loaded.model, device, devices.PRECISIONS[precision], keeps_image_tower=fast)
        if isinstance(visual, ModifiedResNet):
            visual.to(memory_format=torch.channels_last)  # convolutions are faster so on CPUs and GPUs alike
        self._sentences = SentenceEncoding(loaded, self.dim, device, precision, batch_size)
        self.has_fine_sentences = self._sentences.tower.has_fine
        self._known_words = read_known_words(files.folder)
        self.recipe: dict[str, Any] = {
            **self.preprocess.recipe,
            "dense": self._recipe.dense,
            "coarse": self._recipe.coarse,
            "decoding": dict(decoding),
        }
        self.recipe_key = keys.recipe_key(self.recipe)
        self.sentence_recipe: dict[str, Any] = {
            "context_length": self.context_length,
            "dense": self._sentences.tower.name if self.has_fine_sentences else "none",
            "coarse": "clip",
        }
        self.sentence_recipe_key = keys.recipe_key(self.sentence_recipe)
        self.provenance: dict[str, str | int | float] = {
            "model": files.name,
            "pretrained": files.pretrained,
            "weights_file": files.weights.name,
            "weights_fp16_sha256": weights_digest,
            "precision": precision,
            "image_precision": image_precision,
            "image_tower": "fast" if fast else "exact",
            "device": str(device),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
        }

    # Images

    def prepare_images(self) -> None:
        """Make the fast tower and compare it with the exact one, which otherwise the first pictures have to wait for.

        From then on ``image_precision`` and ``provenance`` say how pictures are really encoded.
        """
        if self._image_compute is not None:
            return
        visual = self.model.visual
        if self._wants_fast:
            with devices.exact_arithmetic(self.device, "fp32"):
                fast = fast_tower(self._recipe, visual, self.image_size, self.image_precision, self.device)
            self.image_precision = "fp32" if fast is None else fast.precision
            self.provenance["image_precision"] = self.image_precision
            if fast is not None:
                self._image_compute = fast.compute
                return
            self.provenance["image_tower"] = "exact"
        dtype = devices.PRECISIONS[self.image_precision]
        self._image_compute = lambda pixels_NCHW: self._recipe.compute(pixels_NCHW.to(dtype))

    def encode_images(self, images: Sequence[Image.Image], ids: Sequence[str]) -> FeatureBatch:
        """Features of decoded RGB pictures of any size.

        Raises:
            UserError: when not even one picture fits into memory.
        """
        return self._encode(len(images), ids, lambda start, stop: self._stack(images[start:stop]))

    def encode_pixels(self, pixels_NCHW: Tensor, ids: Sequence[str]) -> FeatureBatch:
        """Features of pictures that went through ``preprocess``: [N, 3, S, S] uint8.

        Raises:
            ValueError: for another shape or dtype.
        """
        self._check_pixels(pixels_NCHW, floating=False)
        return self._encode(len(pixels_NCHW), ids, lambda start, stop: self._normalised(pixels_NCHW[start:stop]))

    def encode_normalised(self, pixels_NCHW: Tensor, ids: Sequence[str]) -> FeatureBatch:
        """Features of pictures already normalised for the model: [N, 3, S, S] of a float dtype.

        Raises:
            ValueError: for another shape or dtype.
        """
        self._check_pixels(pixels_NCHW, floating=True)
        return self._encode(len(pixels_NCHW), ids, lambda start, stop: pixels_NCHW[start:stop].to(self.device))

    def image_vectors(self, pixels_NCHW: Tensor) -> ImageVectors:
        """What the tower gives for one batch of normalised pictures, on the device and before normalisation.

        For those who want more than a `FeatureBatch`; no batching, no back-off.
        """
        self.prepare_images()
        assert self._image_compute is not None
        with torch.no_grad(), devices.exact_arithmetic(self.device, self.image_precision):
            return self._image_compute(pixels_NCHW.to(self.device))

    def _stack(self, images: Sequence[Image.Image]) -> Tensor:
        return self._normalised(torch.stack([self.preprocess(image) for image in images]))

    def _normalised(self, pixels_NCHW: Tensor) -> Tensor:
        return self.preprocess.normalise(pixels_NCHW.to(self.device, non_blocking=True))

    def _encode(self, total: int, ids: Sequence[str], pixels_of: Callable[[int, int], Tensor]) -> FeatureBatch:
        """Features of ``total`` pictures; ``pixels_of(start, stop)`` gives those of one batch, normalised."""
        if len(ids) != total:
            raise ValueError(f"there are {total} items but {len(ids)} ids")

        def one_batch(start: int, stop: int) -> tuple[Tensor | None, ...]:
            count = stop - start
            padding = devices.padded_size(count, self._image_batch.size) - count
            pixels_NCHW = F.pad(pixels_of(start, stop), (0, 0, 0, 0, 0, 0, 0, padding))
            vectors = self.image_vectors(pixels_NCHW)
            coarse, fine, clip = (None if rows is None else rows[:count] for rows in vectors)
            fine = None if fine is None else fine.flatten(0, 1)
            return tuple(unit_rows(rows, self.image_precision) for rows in (coarse, fine, clip))

        coarse, fine, clip = join_rows(list(self._image_batch.map(one_batch, total)), kinds=3, dim=self.dim)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=coarse,
            fine=fine,
            offsets=torch.arange(total + 1, dtype=torch.int64) * self.rows_per_image,
            space_key=self.space_key,
            coarse_clip=clip if self.has_coarse_clip else None,
        )

    def _check_pixels(self, pixels_NCHW: Tensor, floating: bool) -> None:
        right_dtype = pixels_NCHW.is_floating_point() if floating else pixels_NCHW.dtype == torch.uint8
        size = self.image_size
        if not right_dtype or pixels_NCHW.ndim != 4 or pixels_NCHW.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixels are {pixels_NCHW.dtype} {tuple(pixels_NCHW.shape)}, "
                f"expected {'a float dtype' if floating else 'uint8'} (N, 3, {size}, {size})"
            )

    # Sentences

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """[N, context_length] int64; what does not fit is cut off before the end-of-text token."""
        return self._sentences.tokenize(sentences)

    def encode_sentences(self, sentences: Sequence[str], ids: Sequence[str]) -> FeatureBatch:
        """Features of sentences: coarse at the end of text, fine rows of all tokens from start to end, packed."""
        return self.encode_tokens(self.tokenize(sentences), ids)

    def encode_tokens(self, tokens_NL: Tensor, ids: Sequence[str]) -> FeatureBatch:
        """The same for sentences already tokenised: [N, context_length] int64.

        Raises:
            ValueError: for another shape or dtype, or ids outside the vocabulary.
        """
        if len(ids) != len(tokens_NL):
            raise ValueError(f"there are {len(tokens_NL)} items but {len(ids)} ids")
        coarse, fine, lengths_N = self._sentences.encode(tokens_NL, wants_fine=True)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=coarse,
            fine=fine,
            offsets=offsets_from_counts(lengths_N if self.has_fine_sentences else torch.zeros_like(lengths_N)),
            space_key=self.space_key,
        )

    def encode_class_texts(self, texts: Sequence[str]) -> Tensor:
        """[C, D] fp32 unit rows: one vector per text, such as "a photo of a dog."."""
        return self._sentences.encode(self.tokenize(texts), wants_fine=False)[0]

    def unread_words(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those names with a word that the text tower has hardly read, or never, in order.

        They are told of a model whose folder lists the words that it knows (`read_known_words`), and of no other.
        """
        return () if self._known_words is None else names_with_others(names, self._known_words)
