"""The encoder: pictures and sentences to features of one embedding space.

Shape legend: N items, C classes, L fine rows per image, T fine rows of all items, D embedding size, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from PIL import Image
from torch import Tensor

from tai_engine.encoders import devices, keys
from tai_engine.encoders.dense import image_recipe
from tai_engine.encoders.image_encoding import ImageEncoding
from tai_engine.encoders.known_words import names_with_others, read_known_words
from tai_engine.encoders.loading import LoadedModel, load_model, place_model
from tai_engine.encoders.positions import resize_image_tower
from tai_engine.encoders.preprocessing import Preprocess
from tai_engine.encoders.sentence_encoding import SentenceEncoding
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
    images_only: bool = False,
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
        images_only: keep no text tower, nor a model that others could use: half the memory.

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
        images_only=images_only,
    )


class Encoder:
    """One model on one device. Made by `load_encoder`.

    All features leave on the CPU in fp32 with rows of unit length. Batches of pictures are padded to a few shapes, so
    that the same slice of pictures gives the same bits whenever it is encoded. Memory: the items and features of one
    call and the activations of one batch, and for the fast tower its own weights; callers stream large collections
    through it in pieces.

    Attributes:
        model: the open_clip model itself on ``device``, in ``precision``; with a fast tower, its image tower in fp32.
            None of an encoder of images only.
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
        images_only: bool = False,
    ) -> None:
        visual = loaded.model.visual
        recipe = image_recipe(visual, image_size, dense, coarse)
        self.preprocess = Preprocess(files.preprocess, image_size)
        self.device = device
        self.precision = precision
        self.image_size = image_size
        self.dim = int(loaded.config["embed_dim"])
        self.context_length = loaded.context_length
        self.rows_per_image = recipe.rows_per_image
        self.has_coarse_clip = recipe.coarse == "no-position"
        self.logit_scale = float(loaded.model.logit_scale.exp().max())
        self.space_key = keys.space_key(loaded.config, weights_digest)
        self.model = place_model(loaded.model, device, devices.PRECISIONS[precision], keeps_image_tower=fast)
        if isinstance(visual, ModifiedResNet):
            visual.to(memory_format=torch.channels_last)  # convolutions are faster so on CPUs and GPUs alike
        self._images = ImageEncoding(
            visual,
            recipe,
            dim=self.dim,
            device=device,
            precision=image_precision,
            image_size=image_size,
            batch_size=batch_size,
            fast=fast,
        )
        sentences = SentenceEncoding(loaded, self.dim, device, precision, batch_size)
        self.has_fine_sentences = sentences.tower.has_fine
        self._known_words = read_known_words(files.folder)
        self.recipe: dict[str, Any] = {
            **self.preprocess.recipe,
            "dense": recipe.dense,
            "coarse": recipe.coarse,
            "decoding": dict(decoding),
        }
        self.recipe_key = keys.recipe_key(self.recipe)
        self.sentence_recipe: dict[str, Any] = {
            "context_length": self.context_length,
            "dense": sentences.tower.name if self.has_fine_sentences else "none",
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
        self._sentences: SentenceEncoding | None = sentences
        if images_only:
            self.model = self._sentences = None

    # Images

    @property
    def image_precision(self) -> str:
        """``fp32``, ``bf16``, ``fp16`` or ``int16``, of pictures."""
        return self._images.precision

    def prepare_images(self) -> None:
        """Make the fast tower and compare it with the exact one, which otherwise the first pictures have to wait for.

        From then on ``image_precision`` and ``provenance`` say how pictures are really encoded.
        """
        self._images.prepare()
        self.provenance["image_precision"] = self._images.precision
        self.provenance["image_tower"] = "fast" if self._images.is_fast else "exact"

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
        self._images.check(pixels_NCHW, floating=False)
        return self._encode(len(pixels_NCHW), ids, lambda start, stop: self._normalised(pixels_NCHW[start:stop]))

    def encode_normalised(self, pixels_NCHW: Tensor, ids: Sequence[str]) -> FeatureBatch:
        """Features of pictures already normalised for the model: [N, 3, S, S] of a float dtype.

        Raises:
            ValueError: for another shape or dtype.
        """
        self._images.check(pixels_NCHW, floating=True)
        return self._encode(len(pixels_NCHW), ids, lambda start, stop: pixels_NCHW[start:stop].to(self.device))

    def _stack(self, images: Sequence[Image.Image]) -> Tensor:
        return self._normalised(torch.stack([self.preprocess(image) for image in images]))

    def _normalised(self, pixels_NCHW: Tensor) -> Tensor:
        return self.preprocess.normalise(pixels_NCHW.to(self.device, non_blocking=True))

    def _encode(self, total: int, ids: Sequence[str], pixels_of: Callable[[int, int], Tensor]) -> FeatureBatch:
        """Features of ``total`` pictures; ``pixels_of(start, stop)`` gives those of one batch, normalised."""
        if len(ids) != total:
            raise ValueError(f"there are {total} items but {len(ids)} ids")
        if total:
            self.prepare_images()
        coarse, fine, clip = self._images.encode(total, pixels_of)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=coarse,
            fine=fine,
            offsets=torch.arange(total + 1, dtype=torch.int64) * self.rows_per_image,
            space_key=self.space_key,
            coarse_clip=clip if self.has_coarse_clip else None,
        )

    # Sentences

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """[N, context_length] int64; what does not fit is cut off before the end-of-text token."""
        return self._text_half().tokenize(sentences)

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
        coarse, fine, lengths_N = self._text_half().encode(tokens_NL, wants_fine=True)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=coarse,
            fine=fine,
            offsets=offsets_from_counts(lengths_N if self.has_fine_sentences else torch.zeros_like(lengths_N)),
            space_key=self.space_key,
        )

    def encode_class_texts(self, texts: Sequence[str]) -> Tensor:
        """[C, D] fp32 unit rows: one vector per text, such as "a photo of a dog."."""
        return self._text_half().encode(self.tokenize(texts), wants_fine=False)[0]

    def _text_half(self) -> SentenceEncoding:
        if self._sentences is None:
            raise ValueError("the encoder was loaded for images only")
        return self._sentences

    def unread_words(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those names with a word that the text tower has hardly read, or never, in order.

        They are told of a model whose folder lists the words that it knows (`read_known_words`), and of no other.
        """
        return () if self._known_words is None else names_with_others(names, self._known_words)
