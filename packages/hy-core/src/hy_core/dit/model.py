"""The diffusion transformer: latents, time and text to velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hy_core.dit.attention import PackedSequence, check_kernel
from hy_core.dit.blocks import DoubleBlock, SingleBlock, TokenLayout
from hy_core.dit.config import DiTConfig
from hy_core.dit.layers import FinalLayer, NumberEmbedding, PatchEmbedding, VectorEmbedding
from hy_core.dit.ports import AdapterInputPort, Port
from hy_core.dit.refiner import Refiner
from hy_core.dit.rope import table
from hy_core.errors import HyError

NO_ADAPTER_INPUTS: Mapping[str, Any] = MappingProxyType({})


@dataclass
class Prepared:
    """All that depends on the prompt and the shape alone, computed once per run."""

    text: Tensor  # [T,D] embedded text states, packed
    mean: Tensor  # [B,D] embedded mean of the states
    pooled: Tensor  # [B,D] embedded pooled text, for the vectors of fixed frames
    guided: Tensor  # [B,D] the same with the embedded guidance, for all other vectors
    words: PackedSequence  # text alone
    layout: TokenLayout  # rotary tables, and text joined to the video
    grid: tuple[int, int]  # rows and columns of patches


@dataclass
class Vectors:
    """The conditioning vectors of one step."""

    time: Tensor  # [B] time of the text, 0..1
    frames: Tensor  # [B,F,D] of each frame
    text: Tensor  # [B,D] of the text
    head: Tensor  # [B,F,D] of each frame in the last layer: fixed frames have the text's


class DiT(nn.Module):
    """A HunyuanVideo transformer. Parameter names are those of the official checkpoints.

    Plugins attach modules at `adapter_inputs`, `embed`, `time`, `double_blocks[i].after` and `single_blocks[i].after`.
    """

    forward_methods = ("prepare",)
    """Methods beside `forward` that read parameters, for strategies that shard them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.img_in = PatchEmbedding(config.in_channels, width, config.patch)
        self.txt_in = Refiner(config.text_dim, width, config.heads, config.depth_refiner)
        self.time_in = NumberEmbedding(width)
        self.vector_in = VectorEmbedding(config.pooled_dim, width)
        self.guidance_in = NumberEmbedding(width) if config.guidance else None
        self.double_blocks = nn.ModuleList([DoubleBlock(config) for _ in range(config.depth_double)])
        self.single_blocks = nn.ModuleList([SingleBlock(config) for _ in range(config.depth_single)])
        self.final_layer = FinalLayer(width, config.patch, config.out_channels)
        self.adapter_inputs = AdapterInputPort()
        self.embed = Port()
        self.time = Port()
        #: Recompute blocks in the backward pass instead of keeping their activations.
        self.checkpointing = False
        if self.device.type != "meta":  # drawing numbers of no memory would import half of torch
            self.reset_parameters()

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def dtype(self) -> torch.dtype:
        return self.img_in.proj.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.img_in.proj.weight.device

    def prepare(
        self,
        text: Sequence[Tensor],
        pooled: Tensor,
        frames_at: Tensor,
        size: tuple[int, int],
        guidance: Tensor | None = None,
        long: int | None = None,
        attention: str = "auto",
    ) -> Prepared:
        """Do the work of the prompt and the shape, once per run.

        `text` holds the valid states of each row [L_i, text_dim], `pooled` is [B, pooled_dim]; `frames_at`
        [F] are the temporal positions of the frames (0, 1, 2...), `size` is the latents' height and
        width; `guidance` [B] is a distilled model's embedded guidance (see `embedded_guidance`), else None;
        `long` are the video's frames, if it is longer than those of the training (see `rope.riflex`).
        HyError: text of another width. ValueError: an empty row of text, guidance missing or unknown, a size that the
        patch doesn't divide.
        """
        _, patch_h, patch_w = self.config.patch
        if size[0] % patch_h or size[1] % patch_w:
            raise ValueError(f"latents of {size[0]}x{size[1]} can't be cut into {patch_h}x{patch_w} patches")
        if not all(len(row) for row in text):
            raise ValueError("every row needs at least one text token")
        if (guidance is None) != (self.guidance_in is None):
            raise ValueError("a guidance-distilled DiT needs `guidance`, and only such a DiT takes it")
        found = text[0].shape[-1], pooled.shape[-1]
        wanted = self.config.text_dim, self.config.pooled_dim
        if found != wanted:
            raise HyError(
                f"the text encoders give {found[0]} and {found[1]} channels, this DiT reads {wanted[0]} and "
                f"{wanted[1]}",
                "use the text encoders of the DiT's own model",
            )
        device, lengths = self.device, [len(row) for row in text]
        kernel = check_kernel(attention)
        grid = (size[0] // patch_h, size[1] // patch_w)
        tokens = len(frames_at) * grid[0] * grid[1]
        axes = [frames_at.to(device), *(torch.arange(n, device=device) for n in grid)]
        embedded, mean = self.txt_in.prepare(list(text))
        guided = vector = self.vector_in(pooled)
        if self.guidance_in is not None and guidance is not None:
            guided = vector + self.guidance_in(guidance)
        return Prepared(
            text=embedded,
            mean=mean,
            pooled=vector,
            guided=guided,
            words=PackedSequence(lengths, device=device, kernel=kernel),
            layout=TokenLayout(
                rope=table(axes, self.config.rope_dims, self.config.rope_theta, long),
                joint=PackedSequence([tokens] * len(lengths), lengths, device=device, kernel=kernel),
            ),
            grid=grid,
        )

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        prepared: Prepared,
        adapter_inputs: Mapping[str, Any] = NO_ADAPTER_INPUTS,
        is_fixed: Tensor | None = None,
        text_time: Tensor | None = None,
    ) -> Tensor:
        """Latents [B,C,F,H,W], each frame at its time [B,F] (0 clean, 1 noise), to velocity [B,C',F,H,W].

        `is_fixed` [B,F] marks frames with fixed values: they run at their own time, without guidance. The text, and
        the last layer at fixed frames, follow `text_time` [B], by default the time of the noisiest other frame.
        `adapter_inputs` are the outputs of `dit.adapter_inputs`.

        The stages are methods, so that a step cache can run some of them (`hy_core.flow.cache`).
        """
        vectors = self.vectors(time, prepared, adapter_inputs, is_fixed, text_time)
        video, text = self.embed_tokens(latents, vectors, prepared, adapter_inputs)
        video, text = self.run_blocks(self.blocks, video, text, vectors, prepared, adapter_inputs)
        out: Tensor = self.final_layer(video, vectors.head, prepared.grid)
        return out

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order: the double blocks, then the single ones."""
        return [*self.double_blocks, *self.single_blocks]

    def vectors(
        self,
        time: Tensor,
        prepared: Prepared,
        adapter_inputs: Mapping[str, Any] = NO_ADAPTER_INPUTS,
        is_fixed: Tensor | None = None,
        text_time: Tensor | None = None,
    ) -> Vectors:
        """The conditioning vectors of a step; arguments as in `forward`.

        `time` is [B, F]; the vectors of frames are [B, F, D], that of the text is [B, D].
        """
        moving = torch.ones_like(time, dtype=torch.bool) if is_fixed is None else ~is_fixed
        text_time = time.where(moving, 0).amax(1) if text_time is None else text_time  # [B]
        pooled = prepared.guided[:, None].where(moving[..., None], prepared.pooled[:, None])  # [B,F,D]
        frames = self.time(self.time_in(time * 1000) + pooled, adapter_inputs)  # [B,F,D]
        text = (self.time_in(text_time * 1000) + prepared.guided)[:, None].expand_as(frames)
        text = self.time(text, adapter_inputs)[:, -1].contiguous()  # [B,D]
        return Vectors(text_time, frames, text, frames.where(moving[..., None], text[:, None]))

    def embed_tokens(
        self, latents: Tensor, vectors: Vectors, prepared: Prepared, adapter_inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Video tokens [B,F,S,D] of latents [B,C,F,H,W], and text tokens [T,D]."""
        video: Tensor = self.embed(self.img_in(latents), adapter_inputs)
        text: Tensor = self.txt_in(prepared.text, prepared.mean, vectors.time * 1000, prepared.words)
        return video, text

    def run_blocks(
        self,
        blocks: Sequence[nn.Module],
        video: Tensor,
        text: Tensor,
        vectors: Vectors,
        prepared: Prepared,
        adapter_inputs: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """The tokens [B,F,S,D] and [T,D] after these blocks; recomputed in the backward pass if `checkpointing`."""
        frame_act, text_act = F.silu(vectors.frames), F.silu(vectors.text)
        recompute = self.checkpointing and torch.is_grad_enabled()
        for block in blocks:
            arguments = (video, text, frame_act, text_act, prepared.layout, adapter_inputs)
            video, text = (
                checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
            )
        return video, text

    def reset_parameters(self) -> None:
        """Start values for training: every block begins as the identity, and the output at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.img_in.proj.weight.flatten(1))
        if self.img_in.proj.bias is not None:
            nn.init.zeros_(self.img_in.proj.bias)
        embedders = [self.time_in, self.guidance_in, self.vector_in]
        for embedder in filter(None, [*embedders, self.txt_in.t_embedder, self.txt_in.c_embedder]):
            for layer in embedder.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
        # Modules by their own attributes, which torch types as Tensor | Module.
        double: Any = self.double_blocks
        single: Any = self.single_blocks
        refiner: Any = self.txt_in.individual_token_refiner.blocks
        zero: list[Any] = [self.final_layer.linear, self.final_layer.adaLN_modulation[1]]
        zero += [block.adaLN_modulation[1] for block in refiner]
        for block in double:
            zero += [block.img_mod.linear, block.txt_mod.linear]
        zero += [block.modulation.linear for block in single]
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
