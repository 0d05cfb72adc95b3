"""The cost of a run is told before it starts, and agrees with the networks themselves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hy_core import device, estimate, models
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import MemoryLimitError, UsageError
from hy_core.request import Request
from hy_core.vae import VAE, VAEConfig
from torch.utils.flop_counter import FlopCounterMode

BIG, POCKET = DiTConfig.named["HYVideo-T/2-cfgdistill"], DiTConfig.named["pocket"]
SMALL_VAE = VAEConfig(channels=(16, 32, 64, 64), layers=1, groups=8)
REQUEST = Request("a red circle moves right", cfg=3.0)


def test_the_large_models_numbers_are_the_published_ones() -> None:
    assert estimate.dit_parameters(BIG) == pytest.approx(12_821_012_544, rel=0.01)
    assert estimate.forward_flops(BIG, 118_800, 256) == pytest.approx(12.07e15, rel=0.01)
    assert estimate.forward_flops(BIG, 67_320, 256) == pytest.approx(4.29e15, rel=0.02)
    assert estimate.decode_flops(VAEConfig(), 3, 16, 16) == pytest.approx(2.66e12, rel=0.01)
    request = Request("a fox", width=1280, height=720, frames=129, steps=50)
    cost = estimate.estimate(request, BIG, VAEConfig(), dtype_bytes=2)
    assert cost.video_tokens == 118_800 and cost.evaluations == 50
    assert cost.flops == pytest.approx(603e15, rel=0.02)


@pytest.mark.parametrize("config", [POCKET, BIG], ids=["pocket", "13B"])
def test_parameters_are_counted(config: DiTConfig) -> None:
    with torch.device("meta"):
        exact = sum(p.numel() for p in DiT(config).parameters())
    assert estimate.dit_parameters(config) == exact


def test_the_decoders_operations_are_those_it_does() -> None:
    vae = VAE(SMALL_VAE).to("meta")
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(torch.empty(1, 16, 3, 4, 4, device="meta"))
    assert estimate.decode_flops(SMALL_VAE, 3, 4, 4) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_decoders_weights_are_counted() -> None:
    with torch.device("meta"):
        exact = sum(p.numel() for p in VAE(SMALL_VAE).parameters())
    assert estimate.vae_parameters(SMALL_VAE) == exact


def test_the_networks_operations_are_those_it_does() -> None:
    dit, empty = DiT(POCKET).to("meta"), partial(torch.empty, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prepared = dit.prepare([empty(9, 128)], empty(1, 64), torch.arange(5), (8, 8))
        dit(empty(1, 8, 5, 8, 8), empty(1, 5), prepared)
    assert estimate.forward_flops(POCKET, 80, 9, 5) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_guidance_and_heun_double_the_work() -> None:
    one = estimate.estimate(replace(REQUEST, cfg=1.0), POCKET, SMALL_VAE)
    two = estimate.estimate(REQUEST, POCKET, SMALL_VAE)
    heun = estimate.estimate(replace(REQUEST, sampler="heun"), POCKET, SMALL_VAE)
    assert two.step_flops == 2 * one.step_flops and two.rows == 2
    assert heun.evaluations == 2 * REQUEST.steps - 1
    assert one.video_tokens == 5 * 4 * 4


def test_a_clip_that_cannot_fit_is_refused_with_what_to_do() -> None:
    huge = estimate.estimate(replace(REQUEST, width=65536, height=65536), POCKET, SMALL_VAE)
    with pytest.raises(MemoryLimitError, match="not enough memory") as caught:
        estimate.check_memory(huge, torch.device("cpu"))
    assert "--size" in caught.value.hint
    estimate.check_memory(estimate.estimate(REQUEST, POCKET, SMALL_VAE), torch.device("cpu"))


def test_time_is_measured_on_this_machine() -> None:
    cost = estimate.estimate(REQUEST, POCKET, SMALL_VAE)
    took = estimate.seconds(cost, REQUEST, POCKET, SMALL_VAE, torch.device("cpu"), torch.float32)
    # 43 GFLOP: no machine does them in a millisecond, and none that runs the tests needs an hour.
    assert 1e-3 < took < 3600


def test_the_large_model_is_measured_in_parts() -> None:
    import time

    request = Request("a fox", width=1280, height=720, frames=129, steps=50)
    cost = estimate.estimate(request, BIG, VAEConfig(), dtype_bytes=4)
    start = time.process_time()
    took = estimate.seconds(cost, request, BIG, VAEConfig(), torch.device("cpu"), torch.float32)
    assert took > 3600 and time.process_time() - start < 60


def test_numbers_are_for_people() -> None:
    assert [estimate.scaled(n) for n in (12.07e15, 43e9, 1500.0, 3.0)] == ["12.1 P", "43 G", "1.5 k", "3 "]
    assert [estimate.duration(s) for s in (1.26, 87, 7300)] == ["1.3 s", "1:27 min", "2:01 h"]
    assert len(estimate.estimate(REQUEST, POCKET, SMALL_VAE).lines()) == 3


def test_devices_and_formats_that_are_not_there_are_refused() -> None:
    assert device.pick_device("cpu") == torch.device("cpu")
    assert device.pick_dtype("auto", torch.device("cpu")) is torch.float32
    assert device.pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
    for name in ("gpu", "cuda:99", "xpu"):
        with pytest.raises(UsageError):
            device.pick_device(name)
    with pytest.raises(UsageError):
        device.pick_dtype("fp8", torch.device("cpu"))
    assert 0 < device.free_ram() < 1 << 50


def test_shapes_come_from_the_models_folder(small_folder) -> None:
    dit, vae = models.configs(models.find(str(small_folder)))
    assert dit.width == 32 and vae.latent_channels == 4
