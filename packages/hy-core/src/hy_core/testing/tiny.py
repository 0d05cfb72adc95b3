"""A whole model in small: the real classes with a few thousand random, but always equal, weights."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from hy_core.condition import Condition, EncodingContext
from hy_core.dit import DiT, DiTConfig
from hy_core.models import Defaults, Model
from hy_core.request import Request
from hy_core.vae import VAE, VAEConfig

if TYPE_CHECKING:
    from hy_core.text import TextEncoder
    from hy_core.text.clip import Clip
    from hy_core.text.llm import Llm

M = TypeVar("M", bound=nn.Module)

DIT = DiTConfig(
    width=48,
    heads=2,
    depth_double=2,
    depth_single=2,
    depth_refiner=1,
    rope_dims=(8, 8, 8),
    text_dim=32,
    pooled_dim=16,
    guidance=False,
)
SMALL_VAE = VAEConfig(channels=(4, 8, 8, 8), layers=1, groups=4)
REQUEST = Request("a red circle moves right", width=32, height=32, frames=9, steps=2, model="tiny")
DEFAULTS = Defaults(width=32, height=32, frames=9, fps=8.0, steps=2, guidance=None)


class Tiny:
    """`dit`, `vae`, `text` and a `model` of them, made when asked for; `request` and `condition` fit them."""

    @cached_property
    def dit(self) -> DiT:
        """A DiT of this Tiny's own, in which every weight counts (a fresh DiT would answer zero)."""
        return randomised(DiT(DIT), seed=0)

    @cached_property
    def vae(self) -> VAE:
        """A VAE with 8 x 8 x 4 compression and 16 channels."""
        return randomised(VAE(SMALL_VAE), seed=1)

    @property
    def text(self) -> TextEncoder:
        """A language model and CLIP over single bytes; freeing it doesn't free the next one."""
        from hy_core.text import TextEncoder

        return TextEncoder(*_encoders())

    @cached_property
    def model(self) -> Model:
        """All of them, as `hy_core.generate(request, model=tiny.model)` takes them."""
        return Model("tiny", self.dit, self.vae, lambda: self.text, DEFAULTS)

    request = REQUEST

    def condition(self, request: Request = REQUEST, rows: int = 1, seed: int = 2) -> Condition:
        """A condition for the request's size with random text: 5 tokens in the first row, 6 in the next..."""
        generator = torch.Generator().manual_seed(seed)
        frames, height, width = SMALL_VAE.latent_size(request.frames, request.height, request.width)
        text = [torch.randn(5 + row, DIT.text_dim, generator=generator) for row in range(rows)]
        pooled = torch.randn(rows, DIT.pooled_dim, generator=generator)
        return Condition(
            text,
            pooled,
            frames,
            (height, width),
            request.fps,
            prompts=(request.prompt,) * rows,
            encoding=EncodingContext(vae=self.vae),
        )

    def latents(self, request: Request = REQUEST, rows: int = 1, seed: int = 3) -> Tensor:
        """Noise [rows, C, F, h, w] for the request's size."""
        shape = SMALL_VAE.latent_size(request.frames, request.height, request.width)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(rows, SMALL_VAE.latent_channels, *shape, generator=generator)


def randomised(module: M, seed: int) -> M:
    """The module with small weights drawn from `seed`, whatever its own start values are; for inference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 1 / max(parameter[0].numel(), 1) ** 0.5 if parameter.dim() > 1 else 0.02
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return module.eval().requires_grad_(False)


@cache
def _encoders() -> tuple[Llm, Clip]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    from hy_core.text import Template, Templates
    from hy_core.text.clip import Clip
    from hy_core.text.llm import Llm

    begin, end = "<|begin|>", "<|end|>"
    words = {
        token: index for index, token in enumerate([begin, end, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }

    def tokenizer(order: str) -> PreTrainedTokenizerFast:
        inner = Tokenizer(models.BPE(vocab=words, merges=[]))
        inner.pre_tokenizer, inner.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        inner.add_special_tokens([begin, end])
        inner.post_processor = processors.TemplateProcessing(
            single=order, special_tokens=[(begin, 0), (end, 1)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=begin, eos_token=end, pad_token=end)

    sizes: dict[str, Any] = {"vocab_size": len(words), "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    wide = LlamaConfig(**sizes, hidden_size=DIT.text_dim, intermediate_size=64, max_position_embeddings=256)
    llm: Any = LlamaModel(wide)
    llm.norm = nn.Identity()  # an inner layer's states, as the official models read them
    narrow = CLIPTextConfig(
        **sizes, hidden_size=DIT.pooled_dim, intermediate_size=32, max_position_embeddings=77
    )
    template = Template(before="", after=end)
    templates = Templates(video=template, image=template, tokens=128)
    clip: Any = randomised(CLIPTextModel(narrow), seed=5)
    return (
        Llm(randomised(llm, seed=4), tokenizer(f"{begin} $A"), templates),
        Clip(clip, tokenizer(f"{begin} $A {end}")),
    )
