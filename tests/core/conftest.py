"""A whole model in small: the real classes with random weights, saved in a folder as the shipped one is."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """A folder in the pocket layout, made once: DiT, VAE, language model and CLIP, all small."""
    import torch
    from hy_core.dit import DiT, DiTConfig
    from hy_core.vae import VAE, VAEConfig
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "small"
    folder.mkdir()
    torch.manual_seed(0)
    dit = DiT(
        DiTConfig(
            width=32,
            heads=2,
            depth_double=1,
            depth_single=1,
            rope_dims=(4, 6, 6),
            in_channels=4,
            out_channels=4,
            text_dim=16,
            pooled_dim=16,
            guidance=False,
        )
    )
    for parameter in dit.parameters():  # the start values make every block the identity
        torch.nn.init.normal_(parameter, std=0.1)
    vae = VAE(VAEConfig(channels=(8, 8, 8, 8), latent_channels=4, layers=1, groups=4))
    save_file(dit.state_dict(), folder / "dit.safetensors")
    save_file(vae.state_dict(), folder / "vae.safetensors")
    save_text(folder)
    config = {
        "name": "small",
        "dit": dit.config.to_json(),
        "vae": vae.config.to_json(),
        "defaults": {
            "width": 32,
            "height": 32,
            "frames": 5,
            "fps": 8.0,
            "steps": 3,
            "guidance": None,
            "cfg": 3.0,
            "shift": 5.0,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def save_text(folder):
    """A language model and a CLIP of two layers over bytes."""
    from hy_core.text import Template, Templates
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        LlamaConfig,
        LlamaModel,
        PreTrainedTokenizerFast,
    )

    words = ["<begin>", "<end>", "<pad>", *pre_tokenizers.ByteLevel.alphabet()]
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }

    def save(model, name, pattern):
        tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=pattern, special_tokens=[(word, i) for i, word in enumerate(words[:2])]
        )
        special = {"bos_token": "<begin>", "eos_token": "<end>", "pad_token": "<pad>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / name)
        model.save_pretrained(folder / name)

    llama = LlamaConfig(num_hidden_layers=3, num_key_value_heads=2, max_position_embeddings=256, **sizes)
    clip = CLIPTextConfig(num_hidden_layers=1, max_position_embeddings=77, **sizes)
    save(LlamaModel(llama), "llm", "<begin> $A")
    save(CLIPTextModel(clip), "clip", "<begin> $A <end>")
    Templates(Template("film: ", "<end>"), Template("photo: ", "<end>"), 128).save(
        folder / "llm" / "templates.json"
    )


@pytest.fixture(scope="session")
def loaded(small_folder):
    """The folder's model, loaded once; don't change it (see `model`)."""
    from hy_core import models

    return models.load(str(small_folder), "cpu", "fp32")


@pytest.fixture
def model(loaded):
    """The small model, to be changed at will."""
    import copy

    from hy_core.models import Model

    return Model("small", copy.deepcopy(loaded.dit), copy.deepcopy(loaded.vae), loaded.text, loaded.defaults)
