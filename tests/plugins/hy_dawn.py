# -- start dawn --
"""hy-dawn: let the brightness of a clip follow a curve."""

from __future__ import annotations

from dataclasses import dataclass

from hy_core import Conditioner, hookimpl, option


class Dawn(Conditioner):
    """Follow a brightness curve over the clip."""

    @dataclass(frozen=True)
    class Options:
        curve: str = option(help="Brightness, 0 to 1, at evenly spaced moments: 0.1,0.9")
        scale: float = option(1.0, help="How strongly to follow the curve.")

    def validate(self, request):
        self.values()

    def values(self):
        try:
            return [float(value) for value in self.options.curve.split(",")]
        except ValueError:
            raise self.error("curve", "needs numbers, such as 0.1,0.9") from None

    def attach(self, dit, folder=None):
        from hy_core.dit import Additive

        dit.time.attach(self.name, Additive(1, dit.width))

    def encode(self, request, cond):
        import torch
        import torch.nn.functional as F

        values = torch.tensor([[self.values()]])
        curve = F.interpolate(values, cond.frames, mode="linear", align_corners=True)
        cond.set_adapter_inputs(self.name, curve.mT * self.options.scale)  # [1, F, 1]: the same for each row


@hookimpl
def register_conditioners(register):
    register(Dawn)


# -- end dawn --
