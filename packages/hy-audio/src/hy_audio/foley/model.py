"""The Foley network: noisy audio latents, pictures and words to velocity.

B rows, C channels, N audio tokens (50 a second), V visual tokens (8 a second), S timing tokens (8 a segment),
L text tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hy_core.dit.layers import ContextEmbedding, Linear, NumberEmbedding, norm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hy_audio.foley.blocks import RotaryPositions, SingleBlock, TripleBlock
from hy_audio.foley.config import FoleyConfig
from hy_audio.foley.layers import ConvMLP, SwiGLU, TokenEmbedding, rotary_table

#: Timing tokens of a segment of 16 frames.
SEGMENT = 8


@dataclass
class Prepared:
    """All that depends on the conditions and the length alone, computed once per run."""

    visual: Tensor  # [B,V,D]
    text: Tensor  # [B,L,D]
    sync: Tensor  # [B,N,D] timing features, one for each audio token
    at: RotaryPositions


class FinalLayer(nn.Module):
    """Tokens to velocity. The released weights run without its modulation (`FoleyConfig.final_modulation`)."""

    def __init__(self, config: FoleyConfig) -> None:
        super().__init__()
        self.modulated = config.final_modulation
        self.linear = Linear(config.width, config.latent_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(config.width, 2 * config.width))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        if self.modulated:
            x = norm(x, *self.adaLN_modulation(vec).chunk(2, dim=-1))
        else:
            x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return self.linear(x).transpose(1, 2)


class Foley(nn.Module):
    """HunyuanVideo-Foley's network. Sample it with `hy_audio.dit.sampling.sample_audio`.

    prepared = foley.prepare(visual, sync, text, length=400)
    nothing = foley.prepare(*foley.empty(1, 64, 192), negative_text, length=400)
    latents = sample_audio(foley, noise, prepared, nothing, steps=50, scale=4.5)
    """

    def __init__(self, config: FoleyConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.audio_embedder = TokenEmbedding(config.latent_channels, width)
        self.visual_proj = SwiGLU(config.visual_dim, width)
        self.cond_in = ContextEmbedding(config.text_dim, width)
        self.time_in = NumberEmbedding(width)
        self.sync_in = nn.Sequential(
            Linear(config.sync_dim, width), nn.SiLU(), ConvMLP(width, 4 * width, config.sync_kernel)
        )
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, SEGMENT, config.sync_dim))
        self.triple_blocks = nn.ModuleList([TripleBlock(config) for _ in range(config.depth_triple)])
        self.single_blocks = nn.ModuleList([SingleBlock(config) for _ in range(config.depth_single)])
        self.final_layer = FinalLayer(config)
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, config.visual_dim))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, config.sync_dim))
        #: Recompute blocks in the backward pass instead of keeping their activations.
        self.checkpointing = False
        if self.device.type != "meta":
            self.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        return self.final_layer.linear.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.final_layer.linear.weight.device

    def empty(self, rows: int, visual: int, sync: int) -> tuple[Tensor, Tensor]:
        """The learned features of no picture: [rows, visual, visual_dim] and [rows, sync, sync_dim]."""
        return (
            self.empty_clip_feat.expand(rows, visual, -1),
            self.empty_sync_feat.expand(rows, sync, -1),
        )

    def prepare(
        self, visual: Tensor, sync: Tensor, text: Tensor, length: int, dropped: Tensor | None = None
    ) -> Prepared:
        """Do the work of the conditions, once per run.

        `visual` [B,V,visual_dim], `sync` [B,S,sync_dim] with S a multiple of 8, `text` [B,L,text_dim] (all
        tokens are read: the network has no text mask), `length` N audio latents to make. Rows marked in
        `dropped` [B] get the learned empty features instead of their pictures (training). ValueError for a
        wrong shape.
        """
        if sync.shape[1] % SEGMENT:
            raise ValueError(f"timing features come {SEGMENT} a segment, not {sync.shape[1]} in all")
        if not length or not visual.shape[1] or not sync.shape[1] or not text.shape[1]:
            raise ValueError("every stream needs at least one token")
        visual, sync, text = (part.to(self.device, self.dtype) for part in (visual, sync, text))
        if dropped is not None:
            no_visual, no_sync = self.empty(len(visual), visual.shape[1], sync.shape[1])
            dropped = dropped.to(self.device)[:, None, None]
            visual, sync = torch.where(dropped, no_visual, visual), torch.where(dropped, no_sync, sync)
        placed = sync.unflatten(1, (-1, SEGMENT)) + self.sync_pos_emb
        timing = self.sync_in(placed.flatten(1, 2))
        return Prepared(
            visual=self.visual_proj(visual),
            text=self.cond_in(text),
            sync=timing[:, nearest_indices(timing.shape[1], length, self.device)],
            at=self._positions(length, visual.shape[1], text.shape[1]),
        )

    def forward(self, latents: Tensor, time: Tensor, prepared: Prepared) -> Tensor:
        """Velocity [B,C,N] of latents [B,C,N] at `time` [B] (0 clean, 1 noise)."""
        vec = self.time_in(time * 1000)  # [B,D]
        audio, visual = self.audio_embedder(latents) + prepared.sync, prepared.visual
        act = F.silu(vec)
        for block in self.triple_blocks:
            audio, visual = self.run(block, audio, visual, prepared.text, act, prepared.at)
        vec = prepared.sync + vec[:, None]  # [B,N,D]
        act = F.silu(vec)
        for block in self.single_blocks:
            audio = self.run(block, audio, act, prepared.at.audio)
        return self.final_layer(audio, vec)

    def run(self, block: nn.Module, *args: object) -> Tensor | tuple[Tensor, Tensor]:
        """Call a block, keeping its activations or not."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def _positions(self, audio: int, visual: int, text: int) -> RotaryPositions:
        dim, device = self.config.head_dim, self.device
        ones, source = rotary_table(torch.arange(audio, device=device), dim), None
        if self.config.interleaved:
            # As if audio and resized visual tokens stood in turns: audio i at 2i, and visual j after the audio
            # token it falls on. Queries and keys go through that resizing, values don't.
            slots = nearest_indices(audio, visual, device)
            source = nearest_indices(visual, audio, device)[slots]
            joint_audio = rotary_table(2 * torch.arange(audio, device=device), dim)
            joint_visual = rotary_table(2 * slots + 1, dim)
            if torch.equal(source, torch.arange(visual, device=device)):
                source = None
        else:
            joint_audio = ones
            joint_visual = rotary_table(torch.arange(visual, device=device), dim, audio / visual)
        return RotaryPositions(
            joint_audio=joint_audio,
            joint_visual=joint_visual,
            audio=ones,
            visual=rotary_table(torch.arange(visual, device=device), dim),
            text=rotary_table(torch.arange(text, device=device), dim),
            source=source,
        )

    def reset_parameters(self) -> None:
        """Start values for training: every block begins as the identity, and the output at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.time_in.mlp[0], self.time_in.mlp[2]):
            nn.init.normal_(layer.get_parameter("weight"), std=0.02)
        # Without a bias behind it, a SwiGLU gives 0 and no gradient for 0: such a feature would never be learned.
        nn.init.normal_(self.empty_clip_feat, std=0.02)
        nn.init.normal_(self.empty_sync_feat, std=0.02)
        zero = [self.final_layer.linear, self.final_layer.adaLN_modulation[1]]
        for block in self.triple_blocks:
            zero += [block.get_submodule(f"{stream}.mod.linear") for stream in ("audio", "visual")]
        zero += [block.get_submodule("modulation.linear") for block in self.single_blocks]
        for layer in zero:
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))


def nearest_indices(length: int, target: int, device: torch.device | str | None = None) -> Tensor:
    """Which of `length` tokens stands nearest to the middle of each of `target` ones: indices [target]."""
    at = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(at[None, None], size=target, mode="nearest-exact")[0, 0].long()
