"""Synchformer's visual half against a second, plain writing of the published one, and its table of official names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hy_audio.foley import Synchformer, SynchformerConfig, load_synchformer
from hy_core.errors import HyError

SMALL = SynchformerConfig(width=128, depth=2, heads=2, mlp_width=192, size=48, patch=16, frames=8, tube=2)


def official(config: SynchformerConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `vfeat_extractor` in the released file, but for the embedding that is never used."""
    d, m = config.width, config.mlp_width
    linear = {
        "qkv": (3 * d, d),
        "proj": (d, d),
        "fc1": (m, d),
        "fc2": (d, m),
        "linear1": (m, d),
        "linear2": (d, m),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, (config.size // config.patch) ** 2 + 1, d),
        "temp_embed": (1, config.frames // config.tube, d),
        "patch_embed_3d.proj.weight": (d, 3, config.tube, config.patch, config.patch),
        "patch_embed_3d.proj.bias": (d,),
        "spatial_attn_agg.cls_token": (1, 1, d),
        "spatial_attn_agg.self_attn.in_proj_weight": (3 * d, d),
        "spatial_attn_agg.self_attn.in_proj_bias": (3 * d,),
        "spatial_attn_agg.self_attn.out_proj.weight": (d, d),
        "spatial_attn_agg.self_attn.out_proj.bias": (d,),
    }
    norms, layers = ["norm", "spatial_attn_agg.norm1", "spatial_attn_agg.norm2"], []
    layers += [f"spatial_attn_agg.{name}" for name in ("linear1", "linear2")]
    for index in range(config.depth):
        norms += [f"blocks.{index}.norm{number}" for number in (1, 2, 3)]
        layers += [
            f"blocks.{index}.{part}.{name}" for part in ("attn", "timeattn") for name in ("qkv", "proj")
        ]
        layers += [f"blocks.{index}.mlp.{name}" for name in ("fc1", "fc2")]
    for name in norms:
        shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    for name in layers:
        shape = linear[name.rpartition(".")[2]]
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def weights(config: SynchformerConfig) -> dict[str, torch.Tensor]:
    """Random weights in the official names; norms near one."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in official(config).items():
        values = torch.randn(shape, generator=rng)
        if len(shape) == 1:
            state[name] = ("norm" in name and name.endswith("weight")) + 0.1 * values
        else:
            state[name] = values * (0.5 if name.endswith(("embed", "token")) else shape[-1] ** -0.5)
    return state


def plain(state: dict[str, torch.Tensor], config: SynchformerConfig, frames: torch.Tensor) -> torch.Tensor:
    """Features [F,D] of one segment [3,T,H,W] in fp64: one table of who attends to whom, over all tokens at once."""
    w = {name: value.double() for name, value in state.items()}

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(qkv: torch.Tensor, heads: int, allowed: torch.Tensor | None = None) -> torch.Tensor:
        parts = []
        for q, k, v in zip(*(part.chunk(heads, -1) for part in qkv.chunk(3, -1)), strict=True):
            score = q @ k.T / q.shape[-1] ** 0.5
            parts.append(
                (score if allowed is None else score.masked_fill(~allowed, -torch.inf)).softmax(-1) @ v
            )
        return torch.cat(parts, -1)

    tubes, side, patch = config.frames // config.tube, config.size // config.patch, config.patch
    tokens, moments, places = [w["cls_token"][0, 0] + w["pos_embed"][0, 0]], [-1], [-1]
    kernel = w["patch_embed_3d.proj.weight"].flatten(1)
    for moment in range(tubes):
        for place in range(side * side):
            y, x = divmod(place, side)
            cube = frames[
                :, config.tube * moment : config.tube * (moment + 1),
                patch * y : patch * (y + 1), patch * x : patch * (x + 1),
            ].double()  # fmt: skip
            token = kernel @ cube.flatten() + w["patch_embed_3d.proj.bias"]
            tokens.append(token + w["pos_embed"][0, 1 + place] + w["temp_embed"][0, moment])
            moments.append(moment)
            places.append(place)
    x, moment, place = torch.stack(tokens), torch.tensor(moments), torch.tensor(places)
    first = (place < 0)[:, None] | (place < 0)[None]  # the class token reads all, and is read by all
    tables = {"timeattn": first | (place[:, None] == place), "attn": first | (moment[:, None] == moment)}
    for index in range(config.depth):
        for part, before in (("timeattn", "norm3"), ("attn", "norm1")):
            name = f"blocks.{index}.{part}"
            qkv = linear(norm(x, f"blocks.{index}.{before}"), f"{name}.qkv")
            x = x + linear(attend(qkv, config.heads, tables[part]), f"{name}.proj")
        inner = linear(norm(x, f"blocks.{index}.norm2"), f"blocks.{index}.mlp.fc1")
        x = x + linear(F.gelu(inner), f"blocks.{index}.mlp.fc2")
    x, agg, found = norm(x, "norm"), "spatial_attn_agg", []
    for index in range(tubes):
        y = torch.cat((w[f"{agg}.cls_token"][0], x[moment == index]))
        qkv = (
            norm(y, f"{agg}.norm1") @ w[f"{agg}.self_attn.in_proj_weight"].T
            + w[f"{agg}.self_attn.in_proj_bias"]
        )
        y = y + linear(attend(qkv, config.heads), f"{agg}.self_attn.out_proj")
        y = y + linear(F.gelu(linear(norm(y, f"{agg}.norm2"), f"{agg}.linear1")), f"{agg}.linear2")
        found.append(y[0])
    return torch.stack(found)


def test_the_names_and_shapes_are_the_released_ones() -> None:
    with torch.device("meta"):
        network = Synchformer(SynchformerConfig())
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert found == official(SynchformerConfig()) and len(found) == 236


def test_features_equal_those_of_a_plain_writing(tmp_path) -> None:
    state = weights(SMALL)
    torch.save({f"vfeat_extractor.{name}": value for name, value in state.items()}, tmp_path / "sync.pth")
    network = load_synchformer(tmp_path / "sync.pth", config=SMALL)
    segments = torch.rand(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        found = network(segments)
    expected = torch.stack([plain(state, SMALL, one) for one in segments])
    assert found.shape == (2, 4, 128) and float(expected.std()) > 0.5
    assert float((found - expected).abs().max()) < 2e-5
    # What would not be seen if it were wrong, the order of the two attentions and what each sees, is seen here.
    swapped = {
        name.replace("timeattn", "x").replace(".attn.", ".timeattn.").replace(".x.", ".attn."): value
        for name, value in state.items()
    }
    assert float((plain(swapped, SMALL, segments[0]) - expected[0]).abs().max()) > 0.1


def test_a_file_is_read_strictly(tmp_path) -> None:
    state = {f"vfeat_extractor.{name}": value for name, value in weights(SMALL).items()}
    state["afeat_extractor.anything"] = torch.ones(3)  # its ear
    path = tmp_path / "sync.pth"
    name = "vfeat_extractor.blocks.1.timeattn.qkv.weight"
    for wrong in ({name: None}, {name: torch.ones(3, 3)}, {"vfeat_extractor.blocks.1.extra": torch.ones(1)}):
        changed = {key: value for key, value in {**state, **wrong}.items() if value is not None}
        torch.save(changed, path)
        with pytest.raises(HyError, match="blocks.1"):
            load_synchformer(path, config=SMALL)
    torch.save(state, path)
    assert load_synchformer(path).config.width == SMALL.width
