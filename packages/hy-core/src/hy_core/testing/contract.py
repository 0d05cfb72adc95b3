"""The rules for plugins, as checks: what a Conditioner must hold to, so that any can be combined with any."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core import options as opts
from hy_core.conditioner import LIFECYCLE, Conditioner
from hy_core.errors import HyError, PluginError

if TYPE_CHECKING:
    from torch import Tensor

    from hy_core.condition import Condition
    from hy_core.dit import DiT
    from hy_core.testing.tiny import Tiny

NONSENSE = {str: "nonsense \u2603 '", int: -(10**9), float: -1e30, Path: Path("/nowhere/at all")}


def check(cls: type[Conditioner], /, **options: Any) -> None:
    """Check a Conditioner, made with these options, against the rules; AssertionError says what it breaks.

    1. Importing its module doesn't import torch. 2. Each option has help. 3. `validate` accepts the options
    given here, and refuses nonsense with a HyError, if at all. 4. Modules that `attach` attaches have its
    name in their keys and leave the network's own keys alone; 5. until they are trained, they change
    nothing, to the bit; 6. they compile as one graph; 7. their weights can be saved and loaded. 8. Its place
    among other plugins doesn't matter. 9. Its methods take the arguments that they are called with, and a tiny
    generation with guidance runs through them; 10. so does a step of training, if it has modules or methods for it.
    """
    light_import(cls)
    signatures(cls)
    helpful(cls)
    from hy_core.testing.tiny import Tiny

    tiny = Tiny()
    conditioner = cls(**options)
    conditioner.validate(tiny.request)
    refuses_nonsense(cls, options, tiny)
    found = attached(conditioner, tiny)
    without_effect(conditioner, tiny)
    if found:
        one_graph(conditioner, tiny)
        saved(conditioner, tiny)
    any_order(conditioner, tiny)
    generates(conditioner)
    learns(conditioner, Tiny())


def expect(fine: bool, message: str) -> None:
    if not fine:
        raise AssertionError(message)


def light_import(cls: type[Conditioner]) -> None:
    """Rule 1, in a fresh process, since this one has torch already."""
    module = sys.modules[cls.__module__]
    path = getattr(module, "__file__", None)
    expect(path is not None, f"{cls.__module__} has no file")
    code = (
        "import importlib, importlib.util, sys\n"
        "name, path = sys.argv[1:]\n"
        "spec = importlib.util.find_spec(name) if not name.startswith('hy_local_') else None\n"
        "if spec and spec.origin == path: importlib.import_module(name)\n"
        "else:\n"
        "    spec = importlib.util.spec_from_file_location('plugin_under_test', path)\n"
        "    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
        "print('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, cls.__module__, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    expect(done.returncode == 0, f"importing {cls.__module__} fails: {done.stderr.strip().splitlines()[-1:]}")
    light = done.stdout.strip().endswith("False")
    expect(light, f"importing {cls.__module__} imports torch: import it in the methods that need it")


def helpful(cls: type[Conditioner]) -> None:
    """Rule 2: options that can be understood, each with help, and a word on what the plugin does."""
    expect(bool((cls.__doc__ or "").strip()), f"{cls.__name__} has no docstring: people read it in the help")
    for one in opts.fields(cls.Options):
        expect(bool(one.help.strip()), f"the option {one.name!r} has no help")


def refuses_nonsense(cls: type[Conditioner], options: dict[str, Any], tiny: Tiny) -> None:
    """Rule 3: a wrong value of each option is fine or a HyError; a path to nowhere is never fine."""
    for one in opts.fields(cls.Options):
        values = [NONSENSE.get(kind, "nonsense") for kind in one.kinds]
        value = values[0] if one.shape == "one" else values
        try:
            cls(**(options | {one.name: value})).validate(tiny.request)
        except HyError as error:
            if isinstance(error, PluginError):  # what the guard makes of other errors
                raise AssertionError(
                    f"{one.name}={value!r} gives {error.message!r} instead of a UsageError"
                ) from error
            expect("\n" not in error.message, f"the error about {one.name!r} has more than one line: {error}")
        except Exception as error:
            raise AssertionError(f"{one.name}={value!r} gives {error!r} instead of a HyError") from error
        else:
            expect(
                Path not in one.kinds, f"{one.name}={value!r} is accepted: validate must look for the file"
            )


def attached(conditioner: Conditioner, tiny: Tiny) -> list[str]:
    """Rule 4; returns the keys of what was attached."""
    from hy_core.dit.ports import port_owner

    dit = copy.deepcopy(tiny.dit)
    before = list(dit.state_dict())
    conditioner.attach(dit)
    after = list(dit.state_dict())
    expect([key for key in after if key in before] == before, "extend changes the network's own keys")
    new = [key for key in after if key not in before]
    wrong = [key for key in new if port_owner(key) != conditioner.name]
    expect(
        not wrong, f"the key {wrong[:1]} doesn't contain the plugin's name: attach under self.name, at a port"
    )
    return new


def prepared(conditioner: Conditioner, tiny: Tiny) -> tuple[DiT, Condition]:
    """A network that the plugin extended, and a condition that it filled."""
    dit = copy.deepcopy(tiny.dit)
    conditioner.attach(dit)
    cond = tiny.condition()
    conditioner.encode(tiny.request, cond)
    return dit, cond


def answer(dit: DiT, tiny: Tiny, cond: Condition) -> Tensor:
    """The network's velocity [B, C, F, h, w], with the adapter inputs of the condition and nothing else of it."""
    import torch

    plain, latents = tiny.condition(), tiny.latents()
    at = torch.arange(plain.frames, dtype=torch.float32)
    known = dit.prepare(plain.text, plain.pooled, at, plain.size)
    with torch.no_grad():
        velocity: Tensor = dit(
            latents, torch.full((1, plain.frames), 0.5), known, dit.adapter_inputs(cond.adapter_inputs)
        )
    return velocity


def without_effect(conditioner: Conditioner, tiny: Tiny) -> None:
    """Rule 5: an adapter that nobody trained is bitwise the identity."""
    dit, cond = prepared(conditioner, tiny)
    same = answer(dit, tiny, cond).equal(answer(tiny.dit, tiny, tiny.condition()))
    expect(same, "untrained modules change the output: start their last layer at zero")


def one_graph(conditioner: Conditioner, tiny: Tiny) -> None:
    """Rule 6: no graph breaks in the attached modules, and the same numbers."""
    import torch

    dit, cond = prepared(conditioner, tiny)
    wake(dit, conditioner.name)
    expected = answer(dit, tiny, cond)
    try:
        for module in modules(dit, conditioner.name):
            module.compile(fullgraph=True, backend="aot_eager")
        found = answer(dit, tiny, cond)
    except Exception as error:
        line = str(error).strip().splitlines()[:1]
        raise AssertionError(f"an attached module can't be compiled as one graph: {line}") from error
    finally:
        torch.compiler.reset()
    expect(torch.allclose(found, expected, atol=1e-4), "compiled modules give other numbers")


def saved(conditioner: Conditioner, tiny: Tiny) -> None:
    """Rule 7: what is saved of one network makes another one answer the same."""
    import torch

    from hy_core.weights import load_port_weights, save_port_weights

    first, cond = prepared(conditioner, tiny)
    wake(first, conditioner.name)
    second, _ = prepared(conditioner, tiny)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{conditioner.name}.safetensors"
        save_port_weights(first, conditioner.name, path)
        load_port_weights(second, conditioner.name, path)
        found = answer(second, tiny, cond)
    # Within rounding: in memory that is mapped from a file, tensors may be aligned otherwise.
    same = torch.allclose(found, answer(first, tiny, cond), atol=1e-5)
    expect(same, "the modules' state isn't all in their state_dict")


def signatures(cls: type[Conditioner]) -> None:
    """Rule 9, first half: each method can be called as core calls it."""
    for name in LIFECYCLE:
        ours, theirs = getattr(Conditioner, name), getattr(cls, name)
        if theirs is ours:
            continue
        parameters = list(inspect.signature(ours).parameters)
        try:
            inspect.signature(theirs).bind(*parameters)
        except TypeError:
            wanted = f"{name}({', '.join(parameters)})"
            raise AssertionError(f"{name}{inspect.signature(theirs)} can't be called as {wanted}") from None


def generates(conditioner: Conditioner) -> None:
    """Rule 9, second half: a whole run, with a negative branch, gives a clip."""
    from hy_core.session import generate
    from hy_core.testing.tiny import Tiny

    tiny = Tiny()
    try:
        made = generate(dataclasses.replace(tiny.request, cfg=2.0), [conditioner], model=tiny.model)
    except HyError as error:
        raise AssertionError(f"a tiny clip can't be made: {error.message}") from error
    assert not isinstance(made, list)
    shape = made.frames.shape
    expect(len(shape) == 4 and shape[-1] == 3, f"a tiny clip has the shape {shape}")


def learns(conditioner: Conditioner, tiny: Tiny) -> None:
    """Rule 10: the loss of a batch of two clips has a gradient in the attached modules.

    A UsageError means that the plugin needs a table of settings, which isn't known here: nothing is checked then.
    """
    import torch

    from hy_core.flow.denoise import Denoiser
    from hy_core.testing.batch import small_batch

    cls = type(conditioner)
    methods = ("attach", "attach_for_training", "training_condition")
    if all(getattr(cls, name) is getattr(Conditioner, name) for name in methods):
        return
    dit, cond = copy.deepcopy(tiny.dit), tiny.condition(rows=2)
    try:
        conditioner.attach_for_training(dit, {})
        conditioner.training_condition(small_batch(tiny), cond)
    except PluginError as error:
        raise AssertionError(f"a tiny step of training fails: {error.message}") from error
    except HyError:
        return
    parameters = [parameter for module in modules(dit, conditioner.name) for parameter in module.parameters()]
    if not parameters or conditioner.name not in cond.adapter_inputs:
        return
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        velocity = Denoiser(dit, cond)(tiny.latents(rows=2), torch.full((2,), 0.5))
        velocity.square().mean().backward()
    moved = any(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in parameters)
    expect(
        moved,
        "no attached parameter gets a gradient in training: what training_condition sets must reach them",
    )


class Neighbour(Conditioner):
    """Another plugin: it adds words, and a frame to look at."""

    def encode(self, request: Any, cond: Condition) -> None:
        import torch

        generator = torch.Generator().manual_seed(7)
        cond.add_text(self.name, torch.randn(3, cond.text[0].shape[-1], generator=generator))
        channels = cond.encoding.vae.config.latent_channels if cond.encoding.vae else 16
        cond.add_context(self.name, torch.randn(1, channels, 1, *cond.size, generator=generator), [-1.0])


def any_order(conditioner: Conditioner, tiny: Tiny) -> None:
    """Rule 8: before or after another plugin, the result is the same within rounding."""
    import torch

    from hy_core.flow.denoise import Denoiser

    found = []
    for order in ([conditioner, Neighbour()], [Neighbour(), conditioner]):
        dit, cond = copy.deepcopy(tiny.dit), tiny.condition()
        torch.manual_seed(0)  # modules may start from chance, but from the same one
        for one in order:
            one.attach(dit)
        wake(dit, conditioner.name)
        for one in order:
            one.encode(tiny.request, cond)
        with torch.no_grad():
            found.append(Denoiser(dit, cond)(tiny.latents(), 0.5))
    same = torch.allclose(found[0], found[1], atol=1e-4)
    expect(
        same,
        "the order of this plugin and another matters: add to the condition, never replace what is there",
    )


def modules(dit: DiT, name: str) -> Iterator[Any]:
    """The modules that a plugin attached."""
    from hy_core.dit import Port

    for port in dit.modules():
        if isinstance(port, Port) and name in port:
            yield port[name]


def wake(dit: DiT, name: str) -> None:
    """Give a plugin's modules weights as if they had been trained."""
    from hy_core.testing.tiny import randomised

    for seed, module in enumerate(modules(dit, name)):
        randomised(module, seed)
