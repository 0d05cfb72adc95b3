"""Ports: where plugins attach, in order, under their names, and without a trace when there are none."""

from __future__ import annotations

import copy

import pytest
import torch
from hy_core.dit import Additive, CrossAttend, DiT, DiTConfig, Port
from hy_core.dit.ports import port_owner
from hy_core.errors import ConflictError, PluginError
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, width=24, heads=2, depth_double=2, depth_single=2, depth_refiner=1,
    rope_dims=(4, 4, 4), text_dim=10, pooled_dim=6, guidance=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    for parameter in dit.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return dit.requires_grad_(False)


def answer(dit: DiT, adapter_inputs=None, frames: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    text = [torch.randn(n, 10, generator=draw) for n in (3, 5)]
    latents = torch.randn(2, 4, frames, 4, 6, generator=draw)
    pooled = torch.randn(2, 6, generator=draw)
    prepared = dit.prepare(text, pooled, torch.arange(frames), (4, 6))
    time = torch.tensor([[0.7], [0.3]]).expand(2, frames)
    return dit(latents, time, prepared, adapter_inputs or {})


def test_a_plugin_that_feeds_nothing_changes_nothing(dit: DiT) -> None:
    extended = copy.deepcopy(dit)
    extended.embed.attach("one", Additive(5, 24))
    wake(extended.embed["one"])
    assert torch.equal(answer(extended), answer(dit))
    assert not torch.equal(answer(extended, {"one": torch.randn(2, 3, 5)}), answer(dit))


class Nothing(torch.nn.Module):
    def forward(self, x, adapter_inputs):
        return x


def wake(module: torch.nn.Module, seed: int = 3) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)


def test_empty_ports_are_bitwise_identity(dit: DiT) -> None:
    x = torch.randn(1, 3, 6, 24)
    assert Port()(x, {}) is x
    plain = answer(dit)
    bare = copy.deepcopy(dit)
    bare.embed = bare.time = Nothing()
    for block in (*bare.double_blocks, *bare.single_blocks):
        block.after = Nothing()
    assert torch.equal(answer(bare), plain)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["embed", "time", "double_blocks.0.after", "single_blocks.1.after"]), st.integers(0, 99)
)
def test_fresh_modules_change_nothing_to_the_bit(dit: DiT, where: str, seed: int) -> None:
    torch.manual_seed(seed)
    plain = answer(dit)
    extended = copy.deepcopy(dit)
    extended.get_submodule(where).attach("new", Additive(5, dit.width))
    assert torch.equal(answer(extended, {"new": torch.randn(2, 3, 5)}), plain)
    extended.get_submodule(where).detach("new")
    if where not in ("time",):
        extended.get_submodule(where).attach("new", CrossAttend(5, dit.width, heads=2))
        assert torch.equal(answer(extended, {"new": torch.randn(2, 3, 7, 5)}), plain)


def test_order_of_commuting_modules_does_not_matter(dit: DiT) -> None:
    adapter_inputs = {"one": torch.randn(2, 3, 5), "two": torch.randn(2, 1, 5)}
    found = []
    for order in (("one", "two"), ("two", "one")):
        extended = copy.deepcopy(dit)
        for name in order:
            extended.double_blocks[0].after.attach(name, Additive(5, dit.width))
            wake(extended.double_blocks[0].after[name], seed=len(name) + ord(name[0]))
        found.append(answer(extended, adapter_inputs))
    assert torch.allclose(*found, atol=1e-5)
    assert not torch.allclose(found[0], answer(dit), atol=1e-3)


def test_modules_of_two_plugins_run_in_the_order_of_attachment() -> None:
    class Times(torch.nn.Module):
        def forward(self, x, feed):
            return x * feed

    class Plus(torch.nn.Module):
        def forward(self, x, feed):
            return x + feed

    port = Port()
    port.attach("times", Times())
    port.attach("plus", Plus())
    assert port(torch.tensor(2.0), {"times": 3.0, "plus": 1.0}) == 7


@pytest.mark.parametrize("where", ["embed", "time", "double_blocks.1.after", "single_blocks.0.after"])
def test_a_woken_module_acts_and_leaves_with_its_weights(dit: DiT, where: str) -> None:
    extended = copy.deepcopy(dit)
    module = Additive(5, dit.width)
    extended.get_submodule(where).attach("one", module)
    keys = set(extended.state_dict()) - set(dit.state_dict())
    assert keys == {f"{where}.one.proj.weight", f"{where}.one.proj.bias"}
    assert all(port_owner(key) == "one" for key in keys)
    assert all(port_owner(key) is None for key in dit.state_dict())
    wake(module)
    assert not torch.allclose(answer(extended, {"one": torch.randn(2, 3, 5)}), answer(dit), atol=1e-3)
    assert extended.get_submodule(where).detach("one") is module
    assert torch.equal(answer(extended), answer(dit))


@pytest.mark.parametrize("module,feed", [(Additive(5, 24), (2, 2, 5)), (CrossAttend(5, 24, 2), (2, 2, 3, 5))])
def test_a_feed_of_the_video_leaves_context_frames_alone(module, feed) -> None:
    """Another plugin may put context before the video: feeds of the video's frames still fit, and skip it."""
    wake(module)
    x = torch.randn(2, 5, 6, 24)
    out = module(x, torch.randn(feed))
    assert torch.equal(out[:, :3], x[:, :3])
    assert not torch.allclose(out[:, 3:], x[:, 3:], atol=1e-3)


def test_a_name_is_taken_once() -> None:
    port = Port()
    port.attach("one", torch.nn.Identity())
    with pytest.raises(ConflictError, match="'one'"):
        port.attach("one", torch.nn.Identity())
    for name in ("a.b", "keys", ""):
        with pytest.raises(PluginError):
            port.attach(name, torch.nn.Identity())
    with pytest.raises(PluginError, match="'other'"):
        port.detach("other")
