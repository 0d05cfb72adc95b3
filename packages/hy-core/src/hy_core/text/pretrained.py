"""Load transformers models and tokenizers from a folder, from nothing but that folder.

Files are untrusted. Weights are opened by `hy_core.weights`, not by transformers; the configuration is stripped of the
entries by which transformers would fetch or run code (`auto_map`, attention kernels, quantisers), and the hub is
switched off meanwhile. What a folder states is bounded before anything is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants as hub
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hy_core.errors import HyError, MissingError
from hy_core.weights.files import load_state

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_CONFIG_BYTES = 1 << 20
_LARGEST = 1 << 31
#: Layers of one network, and values of the buffers that aren't in its files.
_MAX_LAYERS = 512
_MAX_BUFFERS = 1 << 24
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
#: The architectures that models of this family use; others may fetch parts of theirs when they are built.
_ARCHITECTURES = {
    *("llama", "mistral", "qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen3"),
    *("gemma", "gemma2", "phi3", "llava", "clip", "clip_text_model", "clip_vision_model"),
    *("siglip", "siglip_text_model", "siglip_vision_model", "t5", "umt5", "bert", "roberta"),
    *("clap", "clap_text_model", "clap_audio_model", "whisper", "wav2vec2"),
}
#: Entries of a configuration that choose code, of transformers or of others, and not the network's shape.
_CODE = {
    *("auto_map", "custom_pipelines", "trust_remote_code", "code_revision"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("_attn_implementation_autoset", "experts_implementation", "_experts_implementation"),
    *("_experts_implementation_internal", "kernel_config", "use_kernels", "transformers_weights"),
}
_QUANTIZED = ("quantization_config", "compression_config")
_TOKENIZERS = {
    *("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"),
    *("LlamaTokenizer", "CLIPTokenizer", "Qwen2Tokenizer", "GemmaTokenizer", "CodeLlamaTokenizer"),
    *(
        "GPT2Tokenizer",
        "T5Tokenizer",
        "ByT5Tokenizer",
        "BertTokenizer",
        "WhisperTokenizer",
        "SiglipTokenizer",
    ),
    *("RobertaTokenizer", "ClapTokenizer"),
}


def read_config(path: Path) -> PretrainedConfig:
    """Read a folder's config.json.

    Raises MissingError where it isn't one of a transformers model of this family, HyError for one that is quantised or
    states impossible sizes.
    """
    data = _read_json(path / "config.json", f"{path} holds no model that transformers can read")
    for key in _QUANTIZED:
        if data.get(key):
            kind = data[key].get("quant_method") if isinstance(data[key], dict) else data[key]
            raise HyError(
                f"{path} holds quantised weights ({str(kind)[:60]}), which aren't supported", _NOT_QUANTIZED
            )
    data = _plain(data, path)
    kind = data.pop("model_type", None)
    if kind not in _ARCHITECTURES:
        raise MissingError(
            f"{path} holds no model that transformers can read: its type is {str(kind)[:60]!r}"
        )
    with _one_line(f"{path} holds no model that transformers can read"):
        return AutoConfig.for_model(kind, **data)


_NOT_QUANTIZED = "use the folder with the bfloat16 or float16 weights"


def load_strictly(
    kind: type, path: Path, device: torch.device | str, dtype: torch.dtype | None, **options: Any
) -> PreTrainedModel:
    """Load a transformers model of the class `kind` from a folder to `device`; `dtype` None keeps the files'.

    Raises MissingError for a tensor that the files lack or that has another shape, HyError for damaged files.
    """
    config = options.pop("config", None) or read_config(path)
    state = load_state(path)
    message = f"the model in {path} can't be read"
    with _one_line(message), torch.device("meta"):
        build = getattr(kind, "from_config", None) or kind._from_config  # type: ignore[attr-defined]
        shapes = build(config)
    held = sum(tensor.numel() for tensor in state.values())
    wanted = sum(parameter.numel() for parameter in shapes.parameters())
    if wanted > held or sum(buffer.numel() for buffer in shapes.buffers()) > _MAX_BUFFERS:
        raise MissingError(
            f"the model in {path} has {held:,} values, and its config.json describes {wanted:,}",
            "download the folder again, or check that its config.json belongs to its weights",
        )
    with _one_line(message):
        model, found = type(shapes).from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype or config.dtype or "auto",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    if missing := sorted(found["missing_keys"]):
        raise MissingError(
            f"the model in {path} lacks {len(missing)} tensors ({missing[0]}, …)",
            "download the folder again, or check that its config.json belongs to its weights",
        )
    loaded: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return loaded


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load a folder's tokenizer from its own files; raises MissingError where there is none that can be read."""
    message = f"{path} holds no tokenizer"
    if (stated := path / "tokenizer_config.json").is_file():
        kind = str(_read_json(stated, message).get("tokenizer_class") or "PreTrainedTokenizerFast")
        if kind.removesuffix("Fast") not in {name.removesuffix("Fast") for name in _TOKENIZERS}:
            raise MissingError(f"{message} that hy knows: its class is {kind[:60]!r}")
    with _one_line(message):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            padding_side="right",
            truncation_side="right",
        )
        tokenizer("a")  # some damage shows only in use
    return tokenizer


def _plain(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """A configuration without entries that choose code; HyError for sizes that no model of this family has."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key in _CODE or key.startswith("_attn"):
            continue
        if isinstance(value, dict):
            if value.get("model_type", "llama") not in _ARCHITECTURES:
                kind = str(value["model_type"])[:60]
                raise MissingError(f"{path}/config.json: {key} is a {kind!r}, which hy doesn't know")
            value = _plain(value, path)
        elif isinstance(value, int | float) and not abs(value) < _LARGEST and key != "max_length":
            limit = "too large" if key != "rope_theta" else "no number"
            raise HyError(
                f"{path}/config.json: {key} is {str(value)[:40]}, {limit}", "copy or fetch it again"
            )
        if key in _LAYER_COUNTS and not (isinstance(value, int) and 0 < value <= _MAX_LAYERS):
            raise HyError(f"{path}/config.json: {key} is {str(value)[:40]}", f"expected 1 to {_MAX_LAYERS}")
        found[key] = value
    return found


def _read_json(path: Path, message: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise HyError(f"{path} has {path.stat().st_size:,} bytes", "expected a small JSON file")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MissingError(f"{message}: {path.name}: {_line(error)}") from None
    if not isinstance(data, dict):
        raise MissingError(f"{message}: {path.name} is no JSON object")
    return data


@contextmanager
def _one_line(message: str) -> Iterator[None]:
    """Load without the hub, notices and bars; whatever fails (the Rust parts panic, too) is a MissingError."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    offline = hub.HF_HUB_OFFLINE
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    except (HyError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise MissingError(f"{message}: {_line(error)}") from error
    finally:
        hub.HF_HUB_OFFLINE = offline
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
