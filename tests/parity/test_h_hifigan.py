"""Golden cases H: HiFi-GAN's generator, from its weight-normed checkpoints."""

from __future__ import annotations

import pytest
import torch
from hy_audio.codec.vocoder import VocoderConfig, fill_vocoder
from parity.cases import Case, cases


@pytest.mark.parametrize(("case", "run"), cases("H", config_kind="hifigan"))
def test_generator(case: Case, run: str) -> None:
    vocoder = fill_vocoder(VocoderConfig.from_dict(case.model_config), case.weights())
    with torch.no_grad():
        found = vocoder(case.inputs(run)["mel"])[:, None]
    torch.testing.assert_close(found, case.outputs(run)["wav"], atol=case.tolerance(run, "wav"), rtol=0)
