"""Tables between our parameter names and those of other checkpoints.

Ours are the official ones. A rule names one layer of ours and the layers of the other format whose rows, stacked,
make it up; `{}` stands for a block's number. `.weight` and `.bias` are added to the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

_SUFFIXES = (".weight", ".bias", ".scale")


@dataclass(frozen=True)
class Rule:
    """One layer: `ours` is the rows of `theirs`, in order; `swap` exchanges its two halves."""

    ours: str
    theirs: tuple[str, ...]
    swap: bool = False


@dataclass(frozen=True)
class Source:
    """Where a parameter of ours comes from."""

    keys: tuple[str, ...]
    swap: bool = False

    def build(self, parts: list[Tensor]) -> Tensor:
        """Stack the tensors of `keys` along the rows; a view where there is one without a swap.

        Parts are [rows_i, ...] and become [sum of rows_i, ...].
        """
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return torch.cat(whole.chunk(2)[::-1]) if self.swap else whole

    def dtype(self, dtypes: list[torch.dtype]) -> torch.dtype:
        """Return the dtype that `build` gives for tensors of these dtypes."""
        return reduce(torch.promote_types, dtypes)

    def shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape that `build` gives for tensors of these shapes."""
        first = shapes[0]
        return (sum(shape[0] for shape in shapes), *first[1:]) if first else first


@dataclass(frozen=True)
class Table:
    """All rules of one checkpoint format; a key without a rule has the same name there if `same` is true."""

    name: str
    rules: tuple[Rule, ...] = ()
    same: bool = True
    _patterns: tuple[tuple[re.Pattern[str], Rule], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = []
        for rule in self.rules:
            pattern = re.escape(rule.ours).replace(r"\{\}", r"(\d+)")
            suffix = "()" if rule.ours.endswith(_SUFFIXES) else r"(\.weight|\.bias)"
            patterns.append((re.compile(pattern + suffix), rule))
        object.__setattr__(self, "_patterns", tuple(patterns))

    def source(self, key: str) -> Source | None:
        """Return where our parameter `key` is in this format; None if it has no place there."""
        for pattern, rule in self._patterns:
            if found := pattern.fullmatch(key):
                *numbers, suffix = found.groups()
                return Source(tuple(name.format(*numbers) + suffix for name in rule.theirs), rule.swap)
        return Source((key,)) if self.same else None

    def export(self, state: Mapping[str, Tensor], width: int) -> Iterator[tuple[str, Tensor]]:
        """Yield a state dict of ours under this format's names, tensor by tensor; views where that is possible.

        `width` is the DiT's: of the parts of a stacked layer, all but the last have that many rows. Raises KeyError
        for a parameter that has no place in this format.

        Tensors of any shape by their names.
        """
        for key, tensor in state.items():
            if (source := self.source(key)) is None:
                raise KeyError(f"{key} has no place in the {self.name} format")
            if source.swap:
                tensor = torch.cat(tensor.chunk(2)[::-1])
            last = len(source.keys) - 1
            parts = torch.split(tensor, [width] * last + [len(tensor) - width * last]) if last else [tensor]
            yield from zip(source.keys, parts, strict=True)


def _streams(ours: str, *theirs: tuple[str, ...]) -> list[Rule]:
    """One rule for the video's stream of the double blocks and one for the text's."""
    return [
        Rule(
            f"double_blocks.{{}}.{stream}_{ours}", tuple(f"transformer_blocks.{{}}.{name}" for name in names)
        )
        for stream, names in zip(("img", "txt"), theirs, strict=True)
    ]


_REFINER = "txt_in.individual_token_refiner.blocks.{}"
_THEIR_REFINER = "context_embedder.token_refiner.refiner_blocks.{}"

OFFICIAL = Table("official")

DIFFUSERS = Table(
    "diffusers",
    (
        Rule("img_in.proj", ("x_embedder.proj",)),
        Rule("txt_in.input_embedder", ("context_embedder.proj_in",)),
        Rule("txt_in.t_embedder.mlp.0", ("context_embedder.time_text_embed.timestep_embedder.linear_1",)),
        Rule("txt_in.t_embedder.mlp.2", ("context_embedder.time_text_embed.timestep_embedder.linear_2",)),
        Rule("txt_in.c_embedder.linear_1", ("context_embedder.time_text_embed.text_embedder.linear_1",)),
        Rule("txt_in.c_embedder.linear_2", ("context_embedder.time_text_embed.text_embedder.linear_2",)),
        Rule(f"{_REFINER}.norm1", (f"{_THEIR_REFINER}.norm1",)),
        Rule(f"{_REFINER}.norm2", (f"{_THEIR_REFINER}.norm2",)),
        Rule(f"{_REFINER}.self_attn_qkv", tuple(f"{_THEIR_REFINER}.attn.to_{x}" for x in "qkv")),
        Rule(f"{_REFINER}.self_attn_proj", (f"{_THEIR_REFINER}.attn.to_out.0",)),
        Rule(f"{_REFINER}.mlp.fc1", (f"{_THEIR_REFINER}.ff.net.0.proj",)),
        Rule(f"{_REFINER}.mlp.fc2", (f"{_THEIR_REFINER}.ff.net.2",)),
        Rule(f"{_REFINER}.adaLN_modulation.1", (f"{_THEIR_REFINER}.norm_out.linear",)),
        Rule("time_in.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
        Rule("time_in.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
        Rule("vector_in.in_layer", ("time_text_embed.text_embedder.linear_1",)),
        Rule("vector_in.out_layer", ("time_text_embed.text_embedder.linear_2",)),
        Rule("guidance_in.mlp.0", ("time_text_embed.guidance_embedder.linear_1",)),
        Rule("guidance_in.mlp.2", ("time_text_embed.guidance_embedder.linear_2",)),
        *_streams("mod.linear", ("norm1.linear",), ("norm1_context.linear",)),
        *_streams(
            "attn_qkv",
            ("attn.to_q", "attn.to_k", "attn.to_v"),
            ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        ),
        *_streams("attn_q_norm", ("attn.norm_q",), ("attn.norm_added_q",)),
        *_streams("attn_k_norm", ("attn.norm_k",), ("attn.norm_added_k",)),
        *_streams("attn_proj", ("attn.to_out.0",), ("attn.to_add_out",)),
        *_streams("mlp.fc1", ("ff.net.0.proj",), ("ff_context.net.0.proj",)),
        *_streams("mlp.fc2", ("ff.net.2",), ("ff_context.net.2",)),
        Rule(
            "single_blocks.{}.linear1",
            (
                *(f"single_transformer_blocks.{{}}.attn.to_{x}" for x in "qkv"),
                "single_transformer_blocks.{}.proj_mlp",
            ),
        ),
        Rule("single_blocks.{}.linear2", ("single_transformer_blocks.{}.proj_out",)),
        Rule("single_blocks.{}.q_norm", ("single_transformer_blocks.{}.attn.norm_q",)),
        Rule("single_blocks.{}.k_norm", ("single_transformer_blocks.{}.attn.norm_k",)),
        Rule("single_blocks.{}.modulation.linear", ("single_transformer_blocks.{}.norm.linear",)),
        Rule("final_layer.linear", ("proj_out",)),
        # diffusers keeps (scale, shift) where the official layer keeps (shift, scale)
        Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), swap=True),
    ),
    same=False,
)

#: Single files of ComfyUI: official names with other endings, under a prefix.
COMFYUI = Table(
    "comfyui",
    (
        *(
            Rule(f"{name}.mlp.{ours}", (f"{name}.{theirs}",))
            for name in ("time_in", "guidance_in", "txt_in.t_embedder")
            for ours, theirs in (("0", "in_layer"), ("2", "out_layer"))
        ),
        Rule("txt_in.c_embedder.linear_1", ("txt_in.c_embedder.in_layer",)),
        Rule("txt_in.c_embedder.linear_2", ("txt_in.c_embedder.out_layer",)),
        Rule("single_blocks.{}.modulation.linear", ("single_blocks.{}.modulation.lin",)),
        *(
            Rule(f"single_blocks.{{}}.{x}_norm.weight", (f"single_blocks.{{}}.norm.{name}_norm.scale",))
            for x, name in (("q", "query"), ("k", "key"))
        ),
        *(
            Rule(f"{block}_attn_{part}", (f"{block}_attn.{part}",))
            for block in ("double_blocks.{}.img", "double_blocks.{}.txt", f"{_REFINER}.self")
            for part in ("qkv", "proj")
        ),
        *(
            Rule(f"{block}mlp.{ours}", (f"{block}mlp.{theirs}",))
            for block in ("double_blocks.{}.img_", "double_blocks.{}.txt_", f"{_REFINER}.")
            for ours, theirs in (("fc1", "0"), ("fc2", "2"))
        ),
        *(
            Rule(f"double_blocks.{{}}.{stream}_mod.linear", (f"double_blocks.{{}}.{stream}_mod.lin",))
            for stream in ("img", "txt")
        ),
        *(
            Rule(
                f"double_blocks.{{}}.{stream}_attn_{x}_norm.weight",
                (f"double_blocks.{{}}.{stream}_attn.norm.{name}_norm.scale",),
            )
            for stream in ("img", "txt")
            for x, name in (("q", "query"), ("k", "key"))
        ),
    ),
)
