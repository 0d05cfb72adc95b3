"""The contract for plugins accepts a good one, and names the rule that a bad one breaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hy_core import Conditioner, Plugins, option
from hy_core.dit import Additive
from hy_core.testing import contract as rules
from hy_core.testing.tiny import Tiny
from plugins import heavy  # a module that imports torch
from torch import nn

FOLDER = Path(__file__).parents[1] / "plugins"


class Adapter(Conditioner):
    """Adds a number for each frame at the time port; the base of the bad ones."""

    def module(self, width: int) -> nn.Module:
        """What it attaches."""
        return Additive(1, width)

    def attach(self, dit, folder=None):
        dit.time.attach(self.name, self.module(dit.width))

    def encode(self, request, cond):
        cond.set_adapter_inputs(self.name, torch.linspace(0, 1, cond.frames)[None, :, None])


def test_the_tutorials_plugin_keeps_every_rule(contract):
    some = Plugins([])
    some.load(str(FOLDER / "hy_dawn.py"))
    contract(some.conditioners()["hy_dawn"], curve="0.1,0.9")


def test_a_plugin_without_modules_keeps_every_rule(contract, tmp_path):
    (tmp_path / "plain.py").write_text(
        "from hy_core import Conditioner, hookimpl\n\n\n"
        "class Plain(Conditioner):\n    'Nothing at all.'\n\n\n"
        "@hookimpl\ndef register_conditioners(register):\n    register(Plain)\n"
    )
    some = Plugins([])
    contract(some.conditioners([str(tmp_path / "plain.py")])["plain"])


def test_a_module_that_imports_torch_breaks_rule_1():
    with pytest.raises(AssertionError, match="imports torch: import it in the methods"):
        rules.light_import(heavy.Heavy)


def test_an_option_without_help_breaks_rule_2():
    class Mute(Conditioner):
        """With an option that says nothing."""

        @dataclass(frozen=True)
        class Options:
            size: int = option(1, help=" ")

    class Nameless(Conditioner):
        pass

    with pytest.raises(AssertionError, match="'size' has no help"):
        rules.helpful(Mute)
    with pytest.raises(AssertionError, match="has no docstring"):
        rules.helpful(type("Blank", (Nameless,), {"__doc__": ""}))


def test_a_traceback_on_nonsense_breaks_rule_3(tiny):
    class Careless(Conditioner):
        """Reads a number without care."""

        @dataclass(frozen=True)
        class Options:
            size: str = option(help="A size.")

        def validate(self, request):
            int(self.options.size)

    with pytest.raises(AssertionError, match="size=.* gives .*ValueError.* instead of a UsageError"):
        rules.refuses_nonsense(Careless, {"size": "1"}, tiny)


def test_not_looking_for_a_file_breaks_rule_3(tiny):
    class Blind(Conditioner):
        """Never looks at its file."""

        @dataclass(frozen=True)
        class Options:
            image: Path = option(help="A picture.")

    with pytest.raises(AssertionError, match="validate must look for the file"):
        rules.refuses_nonsense(Blind, {"image": Path(__file__)}, tiny)


def test_a_foreign_name_breaks_rule_4(tiny):
    class Foreign(Adapter):
        def attach(self, dit, folder=None):
            dit.time.attach("other", self.module(dit.width))

    with pytest.raises(AssertionError, match="doesn't contain the plugin's name"):
        rules.attached(Foreign(), tiny)


def test_replacing_a_part_of_the_network_breaks_rule_4(tiny):
    class Rebuilt(Adapter):
        def attach(self, dit, folder=None):
            dit.img_in = nn.Sequential(dit.img_in)

    with pytest.raises(AssertionError, match="changes the network's own keys"):
        rules.attached(Rebuilt(), tiny)


def test_an_effect_without_training_breaks_rule_5(tiny):
    class Loud(Adapter):
        def module(self, width):
            module = Additive(1, width)
            nn.init.constant_(module.proj.bias, 1e-3)
            return module

    with pytest.raises(AssertionError, match="untrained modules change the output"):
        rules.without_effect(Loud(), tiny)


class Branching(Additive):
    """Looks at the numbers while it runs, which no compiler can follow."""

    def forward(self, x, feed):
        return super().forward(x, feed) if feed.sum().item() > 0 else x


def test_a_graph_break_breaks_rule_6(tiny):
    class Broken(Adapter):
        def module(self, width):
            return Branching(1, width)

    with pytest.raises(AssertionError, match="can't be compiled as one graph"):
        rules.one_graph(Broken(), tiny)


class Hiding(Additive):
    """Keeps half of its state where saving doesn't find it."""

    def __init__(self, features, width):
        super().__init__(features, width)
        self.hidden = [torch.randn(width)]

    def forward(self, x, feed):
        return super().forward(x, feed) + self.hidden[0]


def test_state_that_is_not_saved_breaks_rule_7(tiny):
    class Secretive(Adapter):
        def module(self, width):
            return Hiding(1, width)

    with pytest.raises(AssertionError, match="isn't all in their state_dict"):
        rules.saved(Secretive(), tiny)


def test_replacing_what_others_added_breaks_rule_8(tiny):
    class Selfish(Conditioner):
        """Takes the text as it is now for the whole of it."""

        def encode(self, request, cond):
            cond.text = [torch.cat([row, row]) for row in cond.tokens()]

    with pytest.raises(AssertionError, match="the order of this plugin and another matters"):
        rules.any_order(Selfish(), tiny)


def test_tiny_is_equal_each_time_and_never_shared(tiny):
    other = type(tiny)()
    assert other.dit is not tiny.dit
    for key, value in tiny.dit.state_dict().items():
        assert value.equal(other.dit.state_dict()[key]), key
    assert tiny.latents().equal(other.latents())


def test_every_weight_of_tiny_counts(tiny):
    """A tiny network that answers zero would let any plugin pass."""
    answer = rules.answer(tiny.dit, tiny, tiny.condition())
    assert 0.1 < answer.std() < 10


def test_the_fixtures_module_imports_nothing_of_ours():
    import subprocess
    import sys

    code = (
        "import sys, hy_core.testing.plugin\n"
        "heavy = ('torch', 'numpy', 'click', 'hy_core.plugins', 'hy_core.cli')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- signatures, a tiny clip, a tiny step of training ------------------------------------------------------


def shortened(self, latents, t, cond):
    return latents[:, :, :-1]


def halved(self, request, result):
    result.frames = result.frames / 2


@pytest.mark.parametrize(
    ("method", "function", "message"),
    [
        (
            "finish",
            lambda self, result: None,
            r"finish\(self, result\) can't be called as finish\(self, request, result",
        ),
        (
            "finish",
            lambda self, request, result: 1 / 0,
            "a tiny clip can't be made: plugin 'adapter', finish .*Zero",
        ),
        (
            "finish",
            lambda self, request, result: result.frames,
            "finish .*returned a ndarray, which nothing reads",
        ),
        ("finish", halved, "finish .*left result.frames as float64"),
        (
            "before_step",
            lambda self, latents, t, cond: None,
            "before_step .*returned None instead of latents",
        ),
        (
            "before_step",
            shortened,
            "before_step .*returned .1, 16, 2, 4, 4. of torch.float32 instead of latents",
        ),
        (
            "training_condition",
            lambda self, cond: None,
            r"training_condition\(self, cond\) can't be called as",
        ),
        (
            "training_condition",
            lambda self, batch, cond: 1 / 0,
            "a tiny step of training fails: plugin 'adapter', tr",
        ),
        ("attach_for_training", lambda self, dit: {}, r"attach_for_training\(self, dit\) can't be called as"),
        (
            "training_condition",
            lambda self, batch, cond: cond.set_adapter_inputs(self.name, torch.ones(2, 1, 1)),
            None,
        ),
    ],
)
def test_wrong_signatures_results_and_steps_break_rules_9_and_10(method, function, message):
    cls = type("Adapter", (Adapter,), {method: function, "__doc__": "Broken."})

    def rules_9_and_10():
        rules.signatures(cls)
        rules.generates(cls())
        rules.learns(cls(), Tiny())

    if message is None:
        rules_9_and_10()
        return
    with pytest.raises(AssertionError, match=message):
        rules_9_and_10()


def test_inputs_that_do_not_reach_the_module_in_training_break_rule_10():
    class Deaf(Adapter):
        def module(self, width):
            class Nothing(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.linear = nn.Linear(1, width)

                def forward(self, x, feed):
                    return x + 0 * self.linear(feed).sum()

            return Nothing()

        def training_condition(self, batch, cond):
            self.encode(None, cond)

    with pytest.raises(AssertionError, match="no attached parameter gets a gradient"):
        rules.learns(Deaf(), Tiny())
