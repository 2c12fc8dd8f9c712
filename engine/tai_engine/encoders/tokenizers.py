"""What a model takes from the library transformers: tokenizers, and the architecture of foreign text towers.

Only data is read. Code beside a model never runs, whoever asks for it, and a model in a folder asks nothing of the
network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from open_clip.hf_configs import arch_dict
from open_clip.tokenizer import HFTokenizer

from tai_engine.encoders.weights import CONFIG_NAME, ModelFiles, fetch_from_hub, find_in_cache
from tai_engine.errors import ItemError, UserError, reason_of
from tai_engine.files import human_bytes
from tai_engine.json_documents import read_json

_ARCHITECTURE_NAME = "config.json"
_MOST_CONFIG_BYTES = 1 << 20
_TOKENIZER_NAME = "tokenizer_config.json"
_MOST_OF_A_SIZE = 4_000_000
_LAYER_KEYS = ("num_hidden_layers", "num_layers", "encoder_layers")
_ARCHITECTURE = {
    *("model_type", "is_encoder_decoder", "tie_word_embeddings", "scale_embedding", "is_gated_act", "use_cache"),
    *("vocab_size", "hidden_size", "d_model", "d_kv"),
    *("d_ff", "intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"),
    *("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"),
    *("num_attention_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
    *("max_position_embeddings", "type_vocab_size", "position_embedding_type", "layer_norm_eps", "layer_norm_epsilon"),
    *("relative_attention_num_buckets", "relative_attention_max_distance"),
    *("hidden_act", "activation_function", "dense_act_fn", "feed_forward_proj"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
}


def build_tokenizer(files: ModelFiles, cache_dir: str | Path | None) -> tuple[Any, int, int | None]:
    """The tokenizer, the id that fills the rest of the context, and the id that ends a sentence.

    Raises:
        UserError: for a tokenizer that is not there or cannot be loaded, or options that it does not have.
    """
    text = files.config["text_cfg"]
    context_length = text.get("context_length", 77)
    options = text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    if not name:
        if unknown := set(options) - {"clean"}:
            raise UserError(
                f"CLIP's own tokenizer has no option {min(unknown)!r}; correct 'tokenizer_kwargs' in the {CONFIG_NAME} "
                f"of {files.name!r}."
            )
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length, **options)
        return tokenizer, 0, tokenizer.eot_token_id
    try:
        tokenizer = HFTokenizer(
            _tokenizer_place(files, name, cache_dir),
            context_length=context_length,
            cache_dir=cache_dir,
            tokenizer_mode=text.get("tokenizer_mode"),
            trust_remote_code=False,
            local_files_only=files.folder is not None,
            **options,
        )
    except ImportError as error:
        raise UserError(
            f"The tokenizer of {files.name!r} needs the package transformers; install it (pip install transformers) "
            "or choose a model with CLIP's own tokenizer."
        ) from error
    except UserError:
        raise
    except Exception as error:  # transformers has no common base for its errors
        raise UserError(
            f"The tokenizer {name!r} of {files.name!r} could not be loaded ({reason_of(error)}); put its files beside "
            f"the {CONFIG_NAME} and use --model local-dir:/that/folder."
        ) from error
    return tokenizer, int(tokenizer.tokenizer.pad_token_id or 0), tokenizer.tokenizer.eos_token_id


def _tokenizer_place(files: ModelFiles, name: str, cache_dir: str | Path | None) -> str:
    """A folder, or the name of a repository for transformers to fetch the rest from."""
    if files.folder is None:
        fetch_from_hub(name, (_TOKENIZER_NAME,), f"the tokenizer of {files.name}", cache_dir)
        return name
    return str(files.folder)


def text_architecture(files: ModelFiles, name: str, cache_dir: str | Path | None) -> dict[str, Any]:
    """How transformers builds the text tower ``name``: the settings of its ``config.json`` that are sizes and kinds.

    Whatever else the file says (code of its own, kernels to fetch, quantisation) is left out.

    Raises:
        UserError: if there is none, or it is of a kind that open_clip does not know or of sizes that the weights have
            not.
    """
    what = f"the text tower {name!r} of {files.name}"
    if files.folder is None:
        path = fetch_from_hub(name, (_ARCHITECTURE_NAME,), what, cache_dir)
    elif (files.folder / _ARCHITECTURE_NAME).exists():
        path = files.folder / _ARCHITECTURE_NAME
    elif (cached := find_in_cache(name, (_ARCHITECTURE_NAME,), cache_dir)) is not None:
        path = cached
    else:
        raise UserError(
            f"The folder {str(files.folder)!r} has no {_ARCHITECTURE_NAME} of the text tower {name!r}; a model in a "
            f"folder asks nothing of the network, so put the {_ARCHITECTURE_NAME} of that repository beside its "
            f"{CONFIG_NAME}."
        )
    try:
        content = read_json(path, _MOST_CONFIG_BYTES)
    except (ItemError, ValueError) as error:
        raise UserError(f"{str(path)!r}, {what}, cannot be read ({reason_of(error)}); replace it.") from error
    kind = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in arch_dict:
        raise UserError(
            f"{str(path)!r}, {what}, is of the kind {kind!r}; open_clip has text towers of {', '.join(arch_dict)}."
        )
    known = {key: value for key, value in content.items() if key in _ARCHITECTURE and _is_plain(value)}
    numbers = {key: value for key, value in known.items() if isinstance(value, int) and not isinstance(value, bool)}
    width = numbers.get("hidden_size") or numbers.get("d_model") or 1
    least = width * (numbers.get("vocab_size", 0) + width * max(numbers.get(key, 0) for key in _LAYER_KEYS))
    if min(numbers.values(), default=0) < -1 or max(numbers.values(), default=0) > _MOST_OF_A_SIZE:
        raise UserError(f"{str(path)!r}, {what}, has a size that no tower has; replace it.")
    if least > (size := files.weights.stat().st_size):  # a number takes a byte at least
        raise UserError(
            f"{str(path)!r}, {what}, describes {least:,} numbers or more, but the weights {str(files.weights)!r} have "
            f"{human_bytes(size)}; replace it."
        )
    return known


def _is_plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and value.replace("-", "_").isidentifier())
    )
