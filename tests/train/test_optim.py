from __future__ import annotations

import pytest
import torch
from hy_core.errors import UsageError
from hy_train import optim
from hy_train.recipe import Optim
from torch import nn


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (24, 24)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(optim.orthogonalise(torch.randn(shape)))
    assert 0.5 < values.min() and values.max() < 1.4


def test_orthogonalise_gives_what_it_got_whatever_it_computes_in():
    torch.manual_seed(0)
    update = torch.randn(16, 48)
    found = optim.orthogonalise(update)
    assert found.dtype == update.dtype
    wanted = torch.linalg.svd(update, full_matrices=False)
    assert torch.cosine_similarity(found.flatten(), (wanted.U @ wanted.Vh).flatten(), dim=0) > 0.95


def test_adamw_equals_torchs():
    torch.manual_seed(0)
    ours = nn.Linear(5, 3, bias=False)
    theirs = nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    settings = Optim(name="adamw", lr=0.01, weight_decay=0.1)
    pair = [
        (ours, optim.build(ours, settings)),
        (theirs, torch.optim.AdamW(theirs.parameters(), 0.01, (0.9, 0.99), 1e-8, 0.1)),
    ]
    for step in range(5):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in pair:
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_muon_takes_matrices_but_no_norms_embeddings_or_modulations():
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(4, 8),
            "norm": nn.LayerNorm(8),
            "proj": nn.Linear(8, 8),
            "img_mod": nn.Module(),
        }
    )
    model["img_mod"].linear = nn.Linear(8, 48)
    groups = optim.build(model, Optim()).param_groups
    (muon,) = [group for group in groups if group["muon"]]
    assert [id(p) for p in muon["params"]] == [id(model["proj"].weight)]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_muon_minimises():
    torch.manual_seed(0)
    model = nn.Linear(6, 6, bias=False)
    optimizer = optim.build(model, Optim(muon_lr=0.05))
    x, goal = torch.randn(64, 6), torch.randn(6, 6)
    first = None
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(x) - x @ goal).square().mean()
        first = first or loss.item()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * first


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_the_rate_warms_up_and_falls_to_the_floor(decay):
    settings = Optim(warmup=10, decay=decay, min_lr_ratio=0.1)
    rates = [optim.rate(settings, 100, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) == rates[10]
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_an_unknown_optimiser_is_named():
    with pytest.raises(UsageError, match="sgdd"):
        optim.build(nn.Linear(2, 2), Optim(name="sgdd"))
