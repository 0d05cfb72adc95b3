"""What the DiT promises, on a tiny one: rows and frames keep to themselves, given frames, prepared prompts."""

from __future__ import annotations

import copy

import pytest
import torch
from hy_core.dit import DiT, DiTConfig, blocks, embedded_guidance, layers
from hy_core.dit.attention import PackedSequence
from hy_core.dit.blocks import joint_attention
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = DiTConfig(
    in_channels=4, out_channels=3, width=24, heads=2, depth_double=2, depth_single=2, depth_refiner=1,
    rope_dims=(4, 4, 4), text_dim=10, pooled_dim=6, guidance=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    for parameter in dit.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return dit.requires_grad_(False)


class Rows:
    """Random inputs of some rows, of which any may be taken out."""

    def __init__(self, lengths, frames: int = 2, size=(4, 6), seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        rows = len(lengths)
        self.text = [torch.randn(n, 10, generator=draw) for n in lengths]
        self.pooled = torch.randn(rows, 6, generator=draw)
        self.latents = torch.randn(rows, 4, frames, *size, generator=draw)
        self.time = torch.rand(rows, frames, generator=draw)
        self.guidance = 1000 + 9000 * torch.rand(rows, generator=draw)
        self.at = torch.arange(frames)
        self.size = size
        self.given = None

    def take(self, rows: list[int]) -> Rows:
        one = copy.copy(self)
        one.text = [self.text[row] for row in rows]
        for name in ("pooled", "latents", "time", "guidance", "given"):
            value = getattr(self, name)
            setattr(one, name, value if value is None else value[rows])
        return one

    def prepare(self, dit: DiT):
        return dit.prepare(self.text, self.pooled, self.at, self.size, self.guidance)

    def run(self, dit: DiT, **others) -> torch.Tensor:
        return dit(self.latents, self.time, self.prepare(dit), is_fixed=self.given, **others)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    frames=st.integers(1, 3),
    size=st.sampled_from([(2, 2), (4, 6), (6, 2)]),
    seed=st.integers(0, 999),
)
def test_padding_and_batching_never_change_a_row(dit: DiT, lengths, frames, size, seed) -> None:
    """Each row of a batch, with frames at times of its own, is what it is alone; so are rows in another order."""
    rows = Rows(lengths, frames, size, seed)
    together = rows.run(dit)
    for row in range(len(lengths)):
        assert torch.allclose(rows.take([row]).run(dit)[0], together[row], atol=2e-5, rtol=1e-4)
    order = list(range(len(lengths)))[::-1]
    assert torch.allclose(rows.take(order).run(dit), together[order], atol=2e-5, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 99))
def test_frames_are_known_by_their_positions_alone(dit: DiT, order, seed) -> None:
    """Frames in another order, with their positions and times, give the same velocities in that order."""
    rows = Rows([4], frames=3, seed=seed)
    expected = rows.run(dit)[:, :, order]
    rows.latents, rows.time, rows.at = rows.latents[:, :, order], rows.time[:, order], rows.at[order]
    rows.time = rows.time.contiguous()
    assert torch.allclose(rows.run(dit), expected, atol=2e-5, rtol=1e-4)


def test_positions_are_any_numbers(dit: DiT) -> None:
    """A frame may stand before the video, or between two others; text has no position, so that moving shows."""
    rows = Rows([3], frames=3)
    expected = rows.run(dit)
    for at in ([-1.0, 1.0, 2.0], [0.0, 0.5, 2.0]):
        rows.at = torch.tensor(at)
        found = rows.run(dit)
        assert found.isfinite().all() and not torch.allclose(found, expected, atol=1e-3)


def test_one_time_for_all_frames_is_the_ordinary_model(dit: DiT) -> None:
    """With the same time everywhere, nothing that is per frame can be seen: marking no frame is marking none given."""
    rows = Rows([3, 5], frames=3)
    rows.time = torch.tensor([[0.3], [0.8]]).expand(2, 3)
    expected = rows.run(dit)
    rows.given = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(rows.run(dit), expected)
    assert torch.equal(rows.run(dit, text_time=rows.time[:, 0]), expected)


def test_each_frame_has_its_time(dit: DiT) -> None:
    rows = Rows([3], frames=2)
    rows.time = torch.tensor([[0.9, 0.9]])
    even = rows.run(dit)
    rows.time = torch.tensor([[0.2, 0.9]])
    uneven = rows.run(dit)
    assert not torch.allclose(even[:, :, 0], uneven[:, :, 0], atol=1e-2)


def each_frame_alone(x, y, x_norms, y_norms, heads, seq):
    """Attention in which a frame sees itself and the text, and text gets nothing that depends on frames."""
    lengths, tokens = seq.joint.streams[1], x.shape[2]
    seen = []
    for frame in range(x.shape[1]):
        rope = seq.rope[frame * tokens : (frame + 1) * tokens]
        own = blocks.TokenLayout(rope=rope, joint=PackedSequence([tokens] * len(lengths), lengths))
        part, read = joint_attention(x[:, [frame]], y, x_norms, y_norms, heads, own)
        seen.append(part)
    return torch.cat(seen, 1), torch.zeros_like(read)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    frames=st.integers(2, 4),
    known=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_a_time_for_each_frame_is_a_call_for_each(dit: DiT, lengths, frames, known, seed) -> None:
    """With attention between frames cut, frames at times of their own are what separate calls make of them."""
    rows = Rows(lengths, frames, (2, 4), seed)
    rows.given = torch.rand(rows.time.shape, generator=torch.Generator().manual_seed(seed)) < known
    now = rows.time.amax(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "joint_attention", each_frame_alone)
        together = rows.run(dit, text_time=now)
        for frame in range(frames):
            one = copy.copy(rows)
            one.latents, one.at = rows.latents[:, :, [frame]], rows.at[[frame]]
            one.time, one.given = rows.time[:, [frame]], rows.given[:, [frame]]
            assert torch.allclose(
                one.run(dit, text_time=now)[:, :, 0], together[:, :, frame], atol=2e-5, rtol=1e-4
            )
    assert not torch.allclose(together, rows.run(dit, text_time=now), atol=1e-3)  # frames do see each other


def test_given_frames_take_no_guidance_and_text_follows_the_noise(dit: DiT) -> None:
    """The guidance acts through free frames and text; with every frame given it acts through the text only."""
    rows = Rows([3], frames=2)
    rows.time = torch.tensor([[0.0, 0.7]])
    rows.given = torch.tensor([[True, False]])
    expected = rows.run(dit)
    assert torch.equal(rows.run(dit, text_time=torch.tensor([0.7])), expected)
    assert not torch.allclose(rows.run(dit, text_time=torch.tensor([0.2])), expected, atol=1e-3)
    rows.given = None
    assert not torch.allclose(rows.run(dit), expected, atol=1e-3)


def test_trap_02_guidance_6_is_6016() -> None:
    """The scale is cast to bfloat16 and multiplied there: the released weights know 6016, not 6000."""
    scales = [1.0, 3.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    expected = [1000.0, 3504.0, 4992.0, 6016.0, 7008.0, 8000.0, 9024.0, 9984.0]
    assert embedded_guidance(torch.tensor(scales)).tolist() == expected
    assert embedded_guidance(6.0).item() == 6016 and embedded_guidance(6.0).dtype == torch.float32
    assert embedded_guidance(6.0, torch.float32).item() == 6000
    assert embedded_guidance(6.0, torch.float16).item() == 6000


def test_trap_12_padded_text_is_not_seen(dit: DiT) -> None:
    """Zeros after a prompt are not nothing: attended to without a mask, they change the video. They never get in."""
    rows = Rows([3], frames=2)
    expected = rows.run(dit)
    beside = Rows([3, 9], frames=2)
    beside.text[0] = rows.text[0]
    for name in ("pooled", "latents", "time", "guidance"):
        getattr(beside, name)[0] = getattr(rows, name)[0]
    assert torch.allclose(beside.run(dit)[:1], expected, atol=2e-5)
    rows.text = [torch.cat((rows.text[0], torch.zeros(6, 10)))]
    assert not torch.allclose(rows.run(dit), expected, atol=1e-3)


def test_prompt_and_shape_are_worked_out_once(dit: DiT) -> None:
    """A step touches neither the text embedders, nor the pooled vector's, nor the guidance's."""
    rows = Rows([3, 4])
    prepared = rows.prepare(dit)
    blind = copy.deepcopy(dit)
    for module in (blind.txt_in.input_embedder, blind.txt_in.c_embedder, blind.vector_in, blind.guidance_in):
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    for _ in range(2):
        found = blind(rows.latents, rows.time, prepared)
        assert torch.equal(found, dit(rows.latents, rows.time, prepared))


def test_pieces_make_the_whole(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the MLPs run a few frames at a time, unless gradients are wanted."""
    rows = Rows([3, 5], frames=5)
    whole = rows.run(dit)
    monkeypatch.setattr(layers, "PIECE", 12)
    with torch.no_grad():
        assert torch.allclose(rows.run(dit), whole, atol=2e-5)


def test_a_fresh_dit_answers_zero_and_learns_in_every_parameter() -> None:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    rows = Rows([3, 5])
    assert not rows.run(dit).any()
    for parameter in dit.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    rows.run(dit).square().mean().backward()
    assert [name for name, p in dit.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_checkpointing_changes_no_gradient(dit: DiT) -> None:
    rows = Rows([3, 5])
    grads = []
    for on in (False, True):
        one = copy.deepcopy(dit).requires_grad_(True)
        one.checkpointing = on
        rows.run(one).square().mean().backward()
        grads.append([p.grad for p in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_bfloat16_by_autocast_and_by_weights(dit: DiT) -> None:
    rows = Rows([3, 5])
    expected = rows.run(dit)
    with torch.autocast("cpu", torch.bfloat16):
        cast = rows.run(dit)
    half = copy.deepcopy(dit).bfloat16()
    rows.latents = rows.latents.bfloat16()
    plain = rows.run(half)
    assert plain.dtype == torch.bfloat16
    for found in (cast, plain):
        assert (found.float() - expected).norm() / expected.norm() < 0.05


def test_without_instructions_for_bfloat16_the_sums_are_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = (torch.randn(shape).bfloat16() for shape in ((5, 7), (3, 7), (3,)))
    found = []
    for has in (True, False):
        monkeypatch.setattr(layers, "CPU_HAS_BF16", has)
        found.append(layers.linear(x, weight, bias))
    assert found[1].dtype == torch.bfloat16
    assert torch.allclose(*found, atol=0.05)
    exact = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    assert torch.equal(found[1], exact.bfloat16())


@pytest.mark.parametrize(
    "change,message",
    [
        ({"size": (4, 5)}, "4x5"),
        ({"text": [torch.zeros(0, 10)]}, "at least one text token"),
        ({"guidance": None}, "guidance"),
    ],
)
def test_what_can_not_be_prepared(dit: DiT, change: dict, message: str) -> None:
    rows = Rows([3])
    for name, value in change.items():
        setattr(rows, name, value)
    with pytest.raises(ValueError, match=message):
        rows.prepare(dit)


def test_forward_is_one_graph(dit: DiT) -> None:
    """No graph break, so that torch.compile and its users see the whole network."""
    rows = Rows([3, 3])
    prepared = rows.prepare(dit)
    compiled = torch.compile(dit, backend="eager", fullgraph=True)
    try:
        found = compiled(rows.latents, rows.time, prepared)
    finally:
        torch.compiler.reset()
    assert torch.allclose(found, dit(rows.latents, rows.time, prepared), atol=1e-5)
