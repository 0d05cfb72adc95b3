"""The paper's audio network: noisy audio latents, pictures and words to velocity (arXiv 2412.03603, section 7).

B rows, C channels, N audio latents, V_i and L_i visual and text tokens of row i, D width.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hy_core.dit.attention import PackedSequence
from hy_core.dit.layers import Linear, NumberEmbedding, norm
from hy_core.dit.rope import table
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hy_audio.dit.blocks import JointSequence, SingleBlock, Streams, TripleBlock
from hy_audio.dit.config import AudioDiTConfig
from hy_audio.weights import ConfiguredNetwork


@dataclass
class Prepared:
    """All that depends on the conditions and the length alone, computed once per run."""

    visual: Tensor  # [sum of V_i, D]
    text: Tensor  # [sum of L_i, D]
    pooled: Tensor  # [B, D] means of both, embedded
    sync: Tensor | None  # [B*N, D] timing features, one for each audio token
    owners: Streams  # the row of each token
    seq: JointSequence


class Projection(nn.Module):
    """A modality's features to the DiT's width: a linear map, then a gated MLP (SwiGLU)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.enter = Linear(features, width)
        self.gate_up = Linear(width, 2 * width)
        self.down = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.enter(x.to(self.enter.weight.dtype))).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class FinalLayer(nn.Module):
    """Modulated tokens to velocity."""

    def __init__(self, config: AudioDiTConfig) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(config.width, 2 * config.width))
        self.linear = Linear(config.width, config.channels)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        return self.linear(norm(x, *self.adaLN_modulation(vec).chunk(2, dim=-1)))


class AudioDiT(ConfiguredNetwork):
    """A tri-stream audio DiT. Sample it with `hy_audio.dit.sampling.sample_audio`.

    A condition that is left out is one learned token instead of its own, so that a row without pictures, without
    words or without both is what training showed it to be.
    """

    Config = AudioDiTConfig

    def __init__(self, config: AudioDiTConfig) -> None:
        super().__init__(config)
        width = config.width
        self.audio_in = Linear(config.channels, width)
        self.visual_in = Projection(config.visual_dim, width)
        self.text_in = Projection(config.text_dim, width)
        self.sync_in = Projection(config.sync_dim, width) if config.sync_dim else None
        self.time_in = NumberEmbedding(width)
        self.pooled_in = Linear(2 * width, width)
        self.empty_visual = nn.Parameter(torch.zeros(1, width))
        self.empty_text = nn.Parameter(torch.zeros(1, width))
        self.empty_sync = nn.Parameter(torch.zeros(1, width)) if config.sync_dim else None
        self.triple_blocks = nn.ModuleList([TripleBlock(config) for _ in range(config.depth_triple)])
        self.single_blocks = nn.ModuleList([SingleBlock(config) for _ in range(config.depth_single)])
        self.final_layer = FinalLayer(config)
        #: Recompute blocks in the backward pass instead of keeping their activations.
        self.checkpointing = False
        if self.device.type != "meta":
            self.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        return self.audio_in.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.audio_in.weight.device

    def prepare(
        self,
        visual: Rows[Tensor],
        text: Rows[Tensor],
        length: int,
        visual_at: Rows[Tensor] | None = None,
        sync: Rows[Tensor] | None = None,
    ) -> Prepared:
        """Do the work of the conditions, once per run.

        For each row `visual` holds features [V_i, visual_dim] and `text` [L_i, text_dim], without padding; a row
        of none, [0, dim], is a condition left out. `visual_at` holds the times [V_i] of the features in seconds
        (default: `visual_rate` a second from 0). `sync` holds timing features [S_i, sync_dim] that cover the
        clip evenly; they are stretched to the `length` N audio latents. ValueError if rows don't match, or for
        `sync` where the network knows none.
        """
        rows = len(text)
        if len(visual) != rows or (sync is not None and len(sync) != rows):
            raise ValueError("every row needs its visual, text and timing features")
        if sync is not None and self.sync_in is None:
            raise ValueError("this audio DiT knows no timing features (sync_dim is 0)")
        if length < 1:
            raise ValueError("there is no sound without latents")
        seen, seen_lengths = self._rows(visual, self.visual_in, self.empty_visual)
        said, said_lengths = self._rows(text, self.text_in, self.empty_text)
        lengths = ([length] * rows, seen_lengths, said_lengths)
        owners = Streams(
            *(
                torch.repeat_interleave(torch.arange(rows), torch.tensor(counts)).to(self.device)
                for counts in lengths
            )
        )
        means = [self._means(x, owner, rows) for x, owner in ((seen, owners.visual), (said, owners.text))]
        return Prepared(
            visual=seen,
            text=said,
            pooled=self.pooled_in(torch.cat(means, dim=-1)),
            sync=None if self.sync_in is None else self._timing(sync, rows, length),
            owners=owners,
            seq=JointSequence(
                joint=PackedSequence(*lengths, device=self.device),
                audio=self._rotary_table(torch.arange(length, device=self.device)).repeat(rows, 1),
                visual=self._rotary_table(self._visual_positions(visual, visual_at)),
            ),
        )

    def forward(
        self, latents: Tensor, time: Tensor, prepared: Prepared, repa_block: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Velocity [B,C,N] of latents [B,C,N] at `time` [B] (0 clean, 1 noise).

        With `repa_block`, also the audio tokens [B,N,D] after that many blocks, for representation alignment.
        """
        rows, _, length = latents.shape
        vec = self.time_in(time * 1000) + prepared.pooled  # [B,D]
        own = Streams(*(vec.index_select(0, owner) for owner in prepared.owners))
        if prepared.sync is not None:
            own = own._replace(audio=own.audio + prepared.sync)
        acts = Streams(*(F.silu(x) for x in own))
        xs = Streams(
            audio=self.audio_in(latents.to(self.dtype).transpose(1, 2).flatten(0, 1)),
            visual=prepared.visual,
            text=prepared.text,
        )
        block_tokens = None
        for number, block in enumerate((*self.triple_blocks, *self.single_blocks), 1):
            xs = self.run(block, xs, acts, prepared.seq)
            if number == repa_block:
                block_tokens = xs.audio.unflatten(0, (rows, length))
        velocity = self.final_layer(xs.audio, own.audio).unflatten(0, (rows, length)).transpose(1, 2)
        if repa_block is None:
            return velocity
        if block_tokens is None:
            raise ValueError(f"there is no block {repa_block} to repa_block")
        return velocity, block_tokens

    def run(self, block: nn.Module, xs: Streams, acts: Streams, seq: JointSequence) -> Streams:
        """Call a block, keeping its activations or not."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, xs, acts, seq, use_reentrant=False)
        return block(xs, acts, seq)

    def _rows(self, rows: Rows[Tensor], embed: nn.Module, empty: Tensor) -> tuple[Tensor, list[int]]:
        """Embed rows of features, packed; a row without any is the learned token."""
        lengths = [len(row) for row in rows]
        found = list(embed(torch.cat([row.to(self.device, self.dtype) for row in rows])).split(lengths))
        packed = [row if len(row) else empty.to(row.dtype) for row in found]
        return torch.cat(packed), [max(1, length) for length in lengths]

    def _means(self, x: Tensor, owner: Tensor, rows: int) -> Tensor:
        sums = x.new_zeros(rows, x.shape[1]).index_add(0, owner, x)
        return sums / torch.bincount(owner, minlength=rows)[:, None]

    def _timing(self, sync: Rows[Tensor] | None, rows: int, length: int) -> Tensor:
        """One embedded timing feature for each audio token [B*N, D]."""
        assert self.sync_in is not None and self.empty_sync is not None
        stretched: list[Tensor] = []
        for row in sync if sync is not None else [torch.empty(0)] * rows:
            if len(row) == 0:
                stretched.append(self.empty_sync.expand(length, -1))
                continue
            even = F.interpolate(row.to(self.device, self.dtype).T[None], size=length, mode="linear")
            stretched.append(self.sync_in(even[0].T))
        return torch.cat(stretched)

    def _visual_positions(self, visual: Rows[Tensor], visual_at: Rows[Tensor] | None) -> Tensor:
        """Where the pictures of all rows stand among the audio tokens, token i being that of its middle."""
        config, at = self.config, []
        for number, row in enumerate(visual):
            count = len(row)
            times = torch.arange(count) / config.visual_rate if visual_at is None else visual_at[number]
            if len(times) != count:
                raise ValueError(f"{count} visual features have {len(times)} times")
            at.append(times.float() * config.rate - 0.5 if count else torch.zeros(1))
        return torch.cat([part.to(self.device) for part in at])

    def _rotary_table(self, positions: Tensor) -> Tensor:
        return table([positions], [self.config.head_dim], self.config.rope_theta)

    def reset_parameters(self) -> None:
        """Start values for training: every block begins as the identity, and the output at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_in.mlp[0], self.time_in.mlp[2]):
            nn.init.normal_(layer.get_parameter("weight"), std=0.02)
        for empty in (self.empty_visual, self.empty_text, self.empty_sync):
            if empty is not None:
                nn.init.normal_(empty, std=0.02)
        zero = [self.final_layer.linear, self.final_layer.adaLN_modulation[1]]
        for block in self.triple_blocks:
            zero += [block.get_submodule(f"{stream}.mod.linear") for stream in ("audio", "visual", "text")]
        zero += [block.get_submodule("modulation.linear") for block in self.single_blocks]
        for layer in zero:
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))
