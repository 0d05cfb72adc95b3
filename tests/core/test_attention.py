"""Rows attend to themselves only, in as few calls as there are lengths; every kernel gives the same numbers."""

from __future__ import annotations

import sys

import pytest
import torch
from hy_core.dit import attention as module
from hy_core.dit.attention import BACKENDS, PackedSequence, attend, check_kernel, problem
from hy_core.errors import MissingError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F


def qkv(tokens: int, heads: int = 2, dim: int = 16) -> list[torch.Tensor]:
    return [torch.randn(tokens, heads, dim) for _ in range(3)]


def plain(q, k, v):
    """Attention of one row, written out."""
    scores = torch.einsum("qhd,khd->hqk", q.double(), k.double()) * q.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.double()).float()


@pytest.mark.parametrize("name", BACKENDS)
def test_kernels_agree(name: str) -> None:
    if why := problem(name):
        pytest.skip(why)
    torch.manual_seed(0)
    lengths = [3, 3, 300]
    q, k, v = qkv(sum(lengths))
    rows = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    expected = torch.cat([plain(*row) for row in rows])
    found = attend(q, k, v, lengths, name)
    assert (found - expected).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["sdpa", "matmul"])
def test_kernels_agree_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    q, k, v = (x.bfloat16() for x in qkv(400, dim=32))
    found = attend(q, k, v, [400], name)
    assert found.dtype == torch.bfloat16
    expected = plain(q.float(), k.float(), v.float())
    assert (found.float() - expected).norm() / expected.norm() < 1e-2


@pytest.mark.parametrize("name", ["sdpa", "matmul"])
def test_gradients_agree(name: str) -> None:
    torch.manual_seed(0)
    parts = [x.requires_grad_() for x in qkv(12)]
    attend(*parts, [5, 7], name).square().sum().backward()
    found = [x.grad.clone() for x in parts]
    for part in parts:
        part.grad = None
    torch.cat(
        [plain(*row) for row in zip(*(x.split([5, 7]) for x in parts), strict=True)]
    ).square().sum().backward()
    for ours, part in zip(found, parts, strict=True):
        assert torch.allclose(ours, part.grad, atol=1e-5)


def test_rows_of_one_length_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(q, k, v):
        calls.append(q.shape)
        return F.scaled_dot_product_attention(q, k, v)

    monkeypatch.setitem(BACKENDS, "sdpa", module._by_length(counted))
    layout = PackedSequence([4] * 3, [2] * 3)
    video, text = torch.randn(12, 2, 8), torch.randn(6, 2, 8)
    packed = layout.pack(video, text)
    attend(packed, packed, packed, layout.lengths)
    assert calls == [(3, 2, 6, 8)]

    calls.clear()
    layout = PackedSequence([4] * 4, [2, 5, 2, 1])
    text = torch.randn(10, 2, 8)
    packed = layout.pack(torch.randn(16, 2, 8), text)
    attend(packed, packed, packed, layout.lengths)
    assert sorted(shape[0] for shape in calls) == [1, 1, 2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=5))
def test_layout_keeps_rows_together_and_can_be_undone(counts) -> None:
    streams = list(zip(*counts, strict=True))
    layout = PackedSequence(*streams)
    # every token says which stream and row it is of, and which one it is there
    tokens = [
        torch.tensor([[s, row, i] for row, n in enumerate(stream) for i in range(n)]).reshape(-1, 3)
        for s, stream in enumerate(streams)
    ]
    packed = layout.pack(*tokens)
    for row in packed.split(list(layout.lengths)):
        assert len(set(row[:, 1].tolist())) <= 1
        assert row.tolist() == sorted(row.tolist(), key=lambda token: (token[0], token[2]))
    for before, after in zip(tokens, layout.unpack(packed), strict=True):
        assert torch.equal(before, after)


def test_unknown_kernel_is_named() -> None:
    with pytest.raises(UsageError, match="unknown attention 'fast'"):
        check_kernel("fast")


@pytest.mark.parametrize("name,package", [("flash2", "flash_attn"), ("flash3", "flash_attn_interface")])
def test_forced_kernel_that_is_not_installed(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    problem.cache_clear()
    try:
        with pytest.raises(MissingError) as caught:
            check_kernel(name)
    finally:
        problem.cache_clear()
    assert package in caught.value.message and caught.value.hint and "\n" not in str(caught.value)


def test_a_prepared_network_attends_with_its_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks prepared with different kernels can run side by side."""
    used = []
    for name in ("sdpa", "matmul"):
        real = BACKENDS[name]
        monkeypatch.setitem(BACKENDS, name, lambda *args, n=name, r=real: used.append(n) or r(*args))
    for name in ("matmul", "sdpa"):
        sequence = PackedSequence([2], [3], kernel=name)
        sequence.attend(*(torch.ones(5, 2, 8) for _ in range(3)))
    assert used == ["matmul", "sdpa"]
