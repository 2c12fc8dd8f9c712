"""Where a model's configuration and weights lie: an open_clip name and tag, ``hf-hub:org/repo``, ``local-dir:/path``,
or the name of an embedded model.

What is in the local cache is used without asking the network; what is not is asked for once, with a short time limit,
so that a machine without a network gets an answer in seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
import open_clip
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from tai_engine.encoders.embedded import EMBEDDED_MODELS, embedded_folder, embedded_name
from tai_engine.encoders.model_config import check_config
from tai_engine.errors import ItemError, UserError, reason_of, unknown_choice
from tai_engine.json_documents import read_json

CONFIG_NAME = "open_clip_config.json"
# In open_clip's own order of preference for a repository and for a folder.
_HUB_WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_FOLDER_WEIGHT_NAMES = (*_HUB_WEIGHT_NAMES, "model.safetensors", "pytorch_model.bin", "model.pth")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_HUB_TIMEOUT_SECONDS = 5.0
_MOST_CONFIG_BYTES = 1 << 20
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelFiles:
    """Everything needed to build a model.

    Attributes:
        name: the model as the user wrote it; of an embedded one its first name.
        pretrained: the tag, or "" where the name itself says which weights.
        config: open_clip's model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``, …).
        preprocess: open_clip's preprocessing options that differ from its defaults.
        weights: the file with the weights.
        folder: the folder of a ``local-dir:`` model, where a tokenizer may lie too.
    """

    name: str
    pretrained: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    folder: Path | None = None


def find_model(model: str, pretrained: str | None, cache_dir: str | Path | None = None) -> ModelFiles:
    """Find a model's files, downloading them if they are not in the Hugging Face cache.

    Args:
        model: an open_clip model name, ``hf-hub:org/repo``, ``local-dir:/path`` or ``photos``, the embedded model.
        pretrained: open_clip's tag of the weights; ignored for all other forms.
        cache_dir: folder of downloaded files; None is the Hugging Face cache.

    Raises:
        UserError: for an unknown model or tag, a folder without configuration or weights, or weights that are neither
            in the cache nor to be had from the network.
    """
    prefix, colon, rest = model.partition(":")
    if (folder := embedded_folder(model)) is not None:
        return _in_folder(str(embedded_name(model)), folder)
    if colon and prefix == "local-dir":
        return _in_folder(model, Path(rest).expanduser())
    if colon and prefix == "hf-hub":
        return _on_hub(model, rest, cache_dir)
    return _built_in(model, pretrained or "", cache_dir)


def cached_weights(model: str, pretrained: str | None, cache_dir: str | Path | None = None) -> Path | None:
    """The weights file of a model if it is on this machine; the network is not asked.

    Raises:
        UserError: as `find_model`, for names that mean nothing and folders without a model.
    """
    prefix, colon, rest = model.partition(":")
    if (folder := embedded_folder(model)) is not None:
        return _in_folder(model, folder).weights
    if colon and prefix == "local-dir":
        return _in_folder(model, Path(rest).expanduser()).weights
    repository, names = (rest, _HUB_WEIGHT_NAMES) if colon else _hub_files(_known_tag(model, pretrained or "")[1])
    return find_in_cache(repository, names, cache_dir) if _REPOSITORY.fullmatch(repository) else None


def _in_folder(model: str, folder: Path) -> ModelFiles:
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        raise UserError(
            f"There is no folder {str(folder)!r}; local-dir: wants a folder with {CONFIG_NAME} and weights."
        )
    config, preprocess = _read_config(folder / CONFIG_NAME)
    return ModelFiles(model, "", config, preprocess, _weights_in(folder), folder)


def _on_hub(model: str, repository: str, cache_dir: str | Path | None) -> ModelFiles:
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{model!r} names no repository; write hf-hub:organisation/repository.")
    config, preprocess = _read_config(fetch_from_hub(repository, (CONFIG_NAME,), model, cache_dir))
    weights = fetch_from_hub(repository, _HUB_WEIGHT_NAMES, model, cache_dir)
    return ModelFiles(model, "", config, preprocess, weights)


def _known_tag(model: str, pretrained: str) -> tuple[str, dict[str, Any]]:
    """open_clip's own name of a model, and what it knows of the weights."""
    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        raise unknown_choice("model", model, [*open_clip.list_models(), *EMBEDDED_MODELS])
    tags = open_clip.list_pretrained_tags_by_model(name)
    if os.path.isfile(pretrained):  # noqa: PTH113 - a path asks the system, which finds some names too long
        raise UserError(
            f"{pretrained!r} is a bare weights file, which does not say how its model wants pictures resized and "
            f"normalised; put it into a folder with its {CONFIG_NAME} and use --model local-dir:/that/folder."
        )
    if not tags:
        raise UserError(f"No pretrained weights are known for the model {name!r}; choose another or use local-dir:.")
    if not open_clip.is_pretrained_cfg(name, pretrained):
        raise unknown_choice(f"pretrained tag of {name}", pretrained, tags)
    return name, open_clip.get_pretrained_cfg(name, pretrained)


def _hub_files(tag: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The repository of a tag's weights, and their possible names, the preferred one first."""
    location = PurePosixPath(tag["hf_hub"])
    if tag["hf_hub"].endswith("/"):
        return str(location), _HUB_WEIGHT_NAMES
    safe_name = location.with_suffix(".safetensors").name
    return str(location.parent), list(dict.fromkeys((safe_name, location.name)))


def _built_in(model: str, pretrained: str, cache_dir: str | Path | None) -> ModelFiles:
    name, tag = _known_tag(model, pretrained)
    repository, names = _hub_files(tag)
    config = deepcopy(open_clip.get_model_config(name))
    # The configuration named plain "RN50" has GELU, but OpenAI's weights were trained with its quick approximation.
    config["quick_gelu"] = bool(config.get("quick_gelu") or tag.get("quick_gelu"))
    preprocess: dict[str, Any] = {
        key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag
    }
    weights = fetch_from_hub(repository, names, f"{name} {pretrained}", cache_dir)
    return ModelFiles(model, pretrained, config, preprocess, weights)


def fetch_from_hub(
    repository: str, names: Sequence[str], what: str, cache_dir: str | Path | None = None, timeout: float | None = None
) -> Path:
    """The first of ``names`` that a Hugging Face repository has, from the local cache if it is there.

    Args:
        repository: ``organisation/repository``.
        names: file names, the preferred one first.
        what: what the file is for, as the user wrote it; for the error.
        cache_dir: folder of downloaded files; None is the Hugging Face cache.
        timeout: seconds to wait for the first answer of the hub (5 if None).

    Raises:
        UserError: when no file is in the cache and the hub cannot be reached, or has none of them.
    """
    cached = find_in_cache(repository, names, cache_dir)
    if cached is not None:
        return cached
    for name in names:
        try:
            # Asked without the client's own retries, which take half a minute per file where there is no network.
            huggingface_hub.get_hf_file_metadata(
                huggingface_hub.hf_hub_url(repository, name), timeout=timeout or _HUB_TIMEOUT_SECONDS
            )
            return Path(huggingface_hub.hf_hub_download(repository, name, cache_dir=cache_dir))
        except RepositoryNotFoundError as error:
            raise UserError(
                f"The Hugging Face repository {repository!r} of {what!r} does not exist or needs a login; check its "
                f"spelling, run `hf auth login`, or use --model local-dir:/folder with {CONFIG_NAME} and weights."
            ) from error
        except LocalEntryNotFoundError as error:
            raise _unreachable(repository, names, what, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the HTTP client has its own families of errors for every way to fail
            raise _unreachable(repository, names, what, error) from error
    raise UserError(
        f"The Hugging Face repository {repository!r} of {what!r} has no {' or '.join(names)}; choose another model, or "
        f"use --model local-dir:/folder with {CONFIG_NAME} and weights."
    )


def find_in_cache(repository: str, names: Sequence[str], cache_dir: str | Path | None) -> Path | None:
    """The first of ``names`` that the local cache has of a Hugging Face repository; the network is not asked."""
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _unreachable(repository: str, names: Sequence[str], what: str, error: Exception) -> UserError:
    return UserError(
        f"The file {names[0]} of {what!r} is not in the local cache and could not be downloaded from the Hugging Face "
        f"repository {repository!r} ({reason_of(error)}); run once with a network, or copy the file into a folder "
        f"with its {CONFIG_NAME} and use --model local-dir:/that/folder."
    )


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's ``model_cfg`` and ``preprocess_cfg`` from a configuration file, checked."""
    try:
        content = read_json(path, _MOST_CONFIG_BYTES)
    except ItemError as error:
        if error.reason == "missing":
            raise UserError(
                f"The folder {str(path.parent)!r} has no {path.name}, which says what the weights are; add the one "
                "published with the weights."
            ) from error
        raise UserError(f"{str(path)!r} cannot be read ({error.detail}); replace it.") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r} is not a readable JSON file ({reason_of(error)}); replace it.") from error
    return check_config(content, str(path))


def _weights_in(folder: Path) -> Path:
    candidates = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHT_SUFFIXES and p.is_file())
    for name in _FOLDER_WEIGHT_NAMES:
        if folder / name in candidates:
            return folder / name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise UserError(
            f"The folder {str(folder)!r} has a configuration but no weights; add {_FOLDER_WEIGHT_NAMES[0]} "
            f"(any {', '.join(_WEIGHT_SUFFIXES)} file will do)."
        )
    raise UserError(
        f"The folder {str(folder)!r} has several weights files ({', '.join(p.name for p in candidates)}); "
        f"name the one to use {_FOLDER_WEIGHT_NAMES[0]} or leave only one."
    )
