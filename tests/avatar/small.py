"""A released HunyuanVideo-Avatar in small: the same folders, file formats and key names, with random weights."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import torch
from hy_avatar import network, released
from hy_avatar.config import AvatarConfig, Speech
from hy_core.dit import DiT, DiTConfig
from hy_core.testing.tiny import SMALL_VAE, randomised
from hy_core.vae import VAE
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

DIT = DiTConfig(
    width=96,
    heads=3,
    depth_double=3,
    depth_single=2,
    rope_dims=(8, 12, 12),
    text_dim=32,
    pooled_dim=16,
    guidance=False,
)
SPEECH = Speech(channels=24, hidden=20, inner=16)
AVATAR = AvatarConfig(speech=SPEECH)
SPECIAL = ["<s>", "</s>", "<pad>", "<image>"]
PATCHES = 4


def whisper() -> WhisperModel:
    torch.manual_seed(0)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {
        "d_model": 24,
        "encoder_layers": 4,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return WhisperModel(WhisperConfig(vocab_size=60, **heads, **sizes, **tokens)).eval()


def tokenizer(order: str = "<s> $A") -> PreTrainedTokenizerFast:
    words = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    inner.post_processor = processors.TemplateProcessing(
        single=order, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(1)
    words = len(tokenizer())
    heads = {"num_attention_heads": 2, "num_hidden_layers": 4}
    llama = LlamaConfig(
        vocab_size=words, hidden_size=32, intermediate_size=48, **heads, bos_token_id=0, eos_token_id=1,
        pad_token_id=2, max_position_embeddings=4096,
    )  # fmt: skip
    eyes = CLIPVisionConfig(hidden_size=16, intermediate_size=16, **heads, image_size=28, patch_size=14)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=llama, vision_config=eyes, image_token_id=3)
    ).eval()


def state() -> dict[str, torch.Tensor]:
    """The checkpoint of the network, under the released names."""
    torch.manual_seed(3)  # biases keep their start values
    dit = DiT(DIT)
    network.attach_modules(dit, "avatar", AVATAR)
    own = randomised(dit, 3).state_dict()
    places = {key: released.source(key, "avatar", AVATAR) for key in own}
    return {(place.keys[0] if place else key): own[key].clone() for key, place in places.items()}


def folder(root: Path) -> Path:
    """Write the whole model."""
    base = root / "hunyuan-video-t2v-720p"
    for part in (base / "transformers", base / "vae"):
        part.mkdir(parents=True)
    torch.save({"module": state()}, base / "transformers" / "mp_rank_00_model_states.pt")
    (base / "transformers" / "config.json").write_text(json.dumps(DIT.to_json()))
    torch.manual_seed(4)
    vae = randomised(VAE(SMALL_VAE), 1)
    torch.save(
        {"state_dict": {f"vae.{k}": v for k, v in vae.state_dict().items()}},
        base / "vae" / "pytorch_model.pt",
    )
    (base / "vae" / "config.json").write_text(json.dumps(SMALL_VAE.to_json()))
    llava().save_pretrained(root / "llava_llama_image")
    tokenizer().save_pretrained(root / "llava_llama_image")
    size = {"height": 28, "width": 28}
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size).save_pretrained(
        root / "llava_llama_image"
    )
    torch.manual_seed(2)
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer()), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    CLIPTextModel(clip).save_pretrained(root / "text_encoder_2")
    tokenizer("<s> $A </s>").save_pretrained(root / "text_encoder_2")
    whisper().save_pretrained(root / "whisper-tiny")
    return root


def tone(path: Path, seconds: float = 1.0, rate: int = 16000, channels: int = 1, pitch: float = 180) -> Path:
    """A sound that swells and fades like syllables."""
    t = np.arange(round(seconds * rate)) / rate
    wavy = 0.4 * np.sin(2 * np.pi * pitch * t) * np.sin(2 * np.pi * 3 * t) ** 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.repeat(wavy[:, None], channels, 1) * 32767).astype("<i2").tobytes())
    return path


def portrait(path: Path, width: int = 64, height: int = 48) -> Path:
    """A round face on a plain ground."""
    y, x = np.mgrid[0:height, 0:width]
    face = ((x - width / 2) / (width / 4)) ** 2 + ((y - height / 2) / (height / 3)) ** 2 < 1
    frame = np.where(face[..., None], np.array([220, 180, 150]), np.array([40, 90, 60])).astype(np.uint8)
    Image.fromarray(frame).save(path)
    return path
