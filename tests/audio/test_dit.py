"""What the tri-stream audio DiT promises, on a tiny one: rows, dropped conditions, and time that is aligned."""

from __future__ import annotations

import pytest
import torch
from hy_audio.dit import AudioDiT, AudioDiTConfig, sample_audio
from hy_audio.dit.losses import Alignment, drop_conditions, flow_loss
from hy_audio.weights import load_network, save_network
from hy_core.errors import HyError, UsageError
from hy_core.flow.schedule import sample_times

TINY = AudioDiTConfig(
    channels=5, rate=10.0, width=32, heads=2, depth_triple=2, depth_single=2, visual_dim=6, text_dim=7, sync_dim=3
)  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> AudioDiT:
    torch.manual_seed(0)
    dit = AudioDiT(TINY)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return dit.requires_grad_(False)


def conditions(counts: list[tuple[int, int, int]], seed: int = 0) -> dict[str, list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "visual": [torch.randn(v, 6, generator=draw) for v, _, _ in counts],
        "text": [torch.randn(t, 7, generator=draw) for _, t, _ in counts],
        "sync": [torch.randn(s, 3, generator=draw) for _, _, s in counts],
    }


def test_a_row_is_the_same_alone_and_in_a_batch(dit: AudioDiT) -> None:
    counts = [(4, 3, 8), (0, 5, 8), (2, 0, 0), (6, 9, 30)]
    rows, latents = conditions(counts), torch.randn(4, 5, 13)
    time = torch.rand(4)
    together = dit(latents, time, dit.prepare(**rows, length=13))
    for row in range(4):
        alone = {name: [values[row]] for name, values in rows.items()}
        found = dit(latents[row : row + 1], time[row : row + 1], dit.prepare(**alone, length=13))
        assert torch.allclose(found[0], together[row], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["visual", "text", "sync"])
def test_every_condition_is_heard_and_its_absence_is_learned(dit: AudioDiT, name: str) -> None:
    rows, latents, time = conditions([(4, 3, 8)]), torch.randn(1, 5, 13), torch.tensor([0.4])
    before = dit(latents, time, dit.prepare(**rows, length=13))
    changed = {**rows, name: [rows[name][0] + 1]}
    assert not torch.allclose(dit(latents, time, dit.prepare(**changed, length=13)), before, atol=1e-3)
    without = {**rows, name: [rows[name][0][:0]]}
    empty = getattr(dit, f"empty_{name}")
    nothing = dit(latents, time, dit.prepare(**without, length=13))
    assert not torch.allclose(nothing, before, atol=1e-3)
    was = empty.clone()
    try:
        empty.add_(1.0)
        assert not torch.allclose(dit(latents, time, dit.prepare(**without, length=13)), nothing, atol=1e-4)
        assert torch.equal(dit(latents, time, dit.prepare(**rows, length=13)), before)
    finally:
        empty.copy_(was)


def test_positions_are_times_in_seconds(dit: AudioDiT) -> None:
    """At four frames a second the default times are 0, 0.25, ...; other times of the same features are heard."""
    rows, latents, time = conditions([(4, 3, 8)]), torch.randn(1, 5, 13), torch.tensor([0.4])
    default = dit.prepare(**rows, length=13)
    said = dit.prepare(**rows, length=13, visual_at=[torch.tensor([0.0, 0.25, 0.5, 0.75])])
    assert torch.equal(default.seq.visual, said.seq.visual)
    # 0.75 s is the middle of latent 7 at ten a second: the same turns as that latent's.
    assert torch.allclose(said.seq.visual[3], said.seq.audio[7], atol=1e-5)
    moved = dit.prepare(**rows, length=13, visual_at=[torch.tensor([0.0, 0.25, 0.5, 1.0])])
    assert not torch.allclose(dit(latents, time, moved), dit(latents, time, said), atol=1e-3)
    with pytest.raises(ValueError, match="have 2 times"):
        dit.prepare(**rows, length=13, visual_at=[torch.zeros(2)])


def test_order_of_features_does_not_matter_but_their_times(dit: AudioDiT) -> None:
    rows, latents, time = conditions([(4, 3, 8)]), torch.randn(1, 5, 13), torch.tensor([0.4])
    at, order = torch.tensor([0.0, 0.25, 0.5, 0.75]), torch.tensor([2, 0, 3, 1])
    first = dit(latents, time, dit.prepare(**rows, length=13, visual_at=[at]))
    rows["visual"] = [rows["visual"][0][order]]
    second = dit(latents, time, dit.prepare(**rows, length=13, visual_at=[at[order]]))
    assert torch.allclose(first, second, atol=2e-5, rtol=1e-4)


def test_shapes_that_do_not_fit_are_refused(dit: AudioDiT) -> None:
    rows = conditions([(4, 3, 8)])
    with pytest.raises(ValueError, match="every row"):
        dit.prepare(rows["visual"] * 2, rows["text"], 13)
    with pytest.raises(ValueError, match="without latents"):
        dit.prepare(rows["visual"], rows["text"], 0)
    silent = AudioDiT(AudioDiTConfig.from_dict({**TINY.to_json(), "sync_dim": 0}))
    with pytest.raises(ValueError, match="no timing features"):
        silent.prepare(**rows, length=13)
    with pytest.raises(UsageError, match="heads"):
        AudioDiTConfig(width=30, heads=4)
    with pytest.raises(UsageError, match="audio DiT config: unknown key"):
        AudioDiTConfig.from_dict({"depth": 3})


def test_guidance_and_steps_are_the_cores(dit: AudioDiT) -> None:
    """Scale 1 is the condition alone, and one Euler step is noise minus the guided velocity."""
    rows, noise = conditions([(4, 3, 8)]), torch.randn(1, 5, 13)
    wanted = dit.prepare(**rows, length=13)
    nothing = dit.prepare([torch.zeros(0, 6)], [torch.zeros(0, 7)], 13)
    time = torch.ones(1)
    with_, without = dit(noise, time, wanted), dit(noise, time, nothing)
    one = sample_audio(dit, noise, wanted, nothing, steps=1, cfg=3.0)
    assert torch.allclose(one, noise - (without + 3 * (with_ - without)), atol=1e-5)
    plain = sample_audio(dit, noise, wanted, nothing, steps=4, cfg=1.0)
    assert torch.equal(plain, sample_audio(dit, noise, wanted, steps=4))
    heun = sample_audio(dit, noise, wanted, steps=1, sampler="heun")
    assert torch.equal(heun, sample_audio(dit, noise, wanted, steps=1))  # its last step is Euler's


def test_conditions_are_dropped_independently() -> None:
    rows = conditions([(4, 3, 8)] * 2000)
    visual, text = drop_conditions(
        rows["visual"], rows["text"], rate=0.1, generator=torch.Generator().manual_seed(3)
    )
    lost = torch.tensor([[len(v) == 0, len(t) == 0] for v, t in zip(visual, text, strict=True)]).float()
    assert ((lost.mean(0) - 0.1).abs() < 0.025).all()
    assert abs(float(lost.prod(1).mean()) - 0.01) < 0.01
    assert all(len(v) in (0, 4) and v.shape[1] == 6 for v in visual)


def test_it_learns_to_tell_conditions_apart() -> None:
    """Two prompts with two constant sounds: a few hundred steps, and each prompt gives its own."""
    torch.manual_seed(1)
    dit = AudioDiT(AudioDiTConfig.from_dict({**TINY.to_json(), "sync_dim": 0}))
    sounds = torch.stack([torch.full((5, 6), 1.0), torch.full((5, 6), -1.0)])
    words = [torch.ones(2, 7), -torch.ones(2, 7)]
    none = [torch.zeros(0, 6)] * 2
    optimiser = torch.optim.Adam(dit.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        (text,) = drop_conditions(words, rate=0.1)
        loss = flow_loss(dit, sounds, torch.randn_like(sounds), sample_times(2), dit.prepare(none, text, 6))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    with torch.no_grad():
        made = sample_audio(dit, torch.randn(2, 5, 6), dit.prepare(none, words, 6), steps=20)
    assert float((made - sounds).abs().mean()) < 0.3


def test_recomputed_blocks_give_the_same_gradients(dit: AudioDiT) -> None:
    fresh = AudioDiT(TINY)
    fresh.load_state_dict(dit.state_dict())
    rows, latents = conditions([(4, 3, 8)]), torch.randn(1, 5, 13)
    grads = []
    for fresh.checkpointing in (False, True):
        fresh.zero_grad()
        flow_loss(
            fresh, latents, latents.flip(1), torch.tensor([0.3]), fresh.prepare(**rows, length=13)
        ).backward()
        grads.append(fresh.triple_blocks[0].visual.qkv.weight.grad.clone())
    assert torch.allclose(*grads, atol=1e-6) and grads[0].abs().sum() > 0


def test_representation_alignment_returns_a_block_s_tokens(dit: AudioDiT) -> None:
    rows, latents, time = conditions([(4, 3, 8)]), torch.randn(1, 5, 13), torch.tensor([0.4])
    prepared = dit.prepare(**rows, length=13)
    velocity, tokens = dit(latents, time, prepared, repa_block=3)
    assert torch.equal(velocity, dit(latents, time, prepared)) and tokens.shape == (1, 13, 32)
    alignment = Alignment(32, 9, hidden=16)
    loss = alignment(tokens, torch.randn(1, 40, 9))
    assert 0 < loss.item() < 2
    same = alignment.map(tokens)
    assert alignment(tokens, same).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="no block 9"):
        dit(latents, time, prepared, repa_block=9)


def test_it_is_written_and_read_whole(dit: AudioDiT, tmp_path) -> None:
    save_network(dit, tmp_path / "dit.safetensors")
    again = load_network(AudioDiT, tmp_path / "dit.safetensors")
    assert again.config == TINY
    rows, latents, time = conditions([(4, 3, 8)]), torch.randn(1, 5, 13), torch.tensor([0.4])
    with torch.no_grad():
        found = again(latents, time, again.prepare(**rows, length=13))
        assert torch.allclose(found, dit(latents, time, dit.prepare(**rows, length=13)), atol=1e-5)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "dit.safetensors").read_bytes()[:5000])
    with pytest.raises(HyError, match="damaged or cut short"):
        load_network(AudioDiT, tmp_path / "cut.safetensors")
