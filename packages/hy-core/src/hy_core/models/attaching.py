"""Plugin modules attached to a network that several threads use."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition as Signal
from typing import TYPE_CHECKING

from hy_core.models.hashing import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from hy_core.conditioner import Conditioner
    from hy_core.dit import Port
    from hy_core.models.loading import Model

    Places = list[tuple[Port, str]]


@dataclass
class Attachment:
    """The modules of one plugin: where they are, what they depend on, and how many runs use them now."""

    key: Hashable
    fingerprint: str | None
    places: Places = field(default_factory=list)
    users: int = 0

    def detach(self) -> None:
        """Remove the modules from the network."""
        for port, name in self.places:
            port.detach(name)


class Attachments:
    """The attachments of one network, by plugin.

    Modules stay attached for later runs with the same plugin, equal `Conditioner.attach_key` and an unchanged weights
    file. Modules of different plugins don't affect each other's runs; a run that needs other modules of a plugin than
    those in use waits until the runs that use them have ended.
    """

    def __init__(self) -> None:
        self._changed = Signal()
        self._attached: dict[str, Attachment] = {}

    @contextmanager
    def using(self, model: Model, conditioners: Sequence[Conditioner]) -> Iterator[dict[str, str]]:
        """Attach what is missing, remove what nobody uses; gives the fingerprints of the plugins' weights files."""
        wanted = {one.name: (one, self._key(model, one)) for one in conditioners}
        with self._changed:
            while any(self._blocked(name, key) for name, (_, key) in wanted.items()):
                self._changed.wait()
            for name, old in list(self._attached.items()):
                replaced = name in wanted and wanted[name][1] != old.key
                if replaced or (name not in wanted and not old.users):
                    self._attached.pop(name).detach()
            for name, (conditioner, key) in wanted.items():
                if name not in self._attached:
                    self._attached[name] = attach(model, conditioner, key)
            used = {name: self._attached[name] for name in wanted}
            for one in used.values():
                one.users += 1
        try:
            yield {f"plugin {name}": one.fingerprint for name, one in used.items() if one.fingerprint}
        finally:
            with self._changed:
                for one in used.values():
                    one.users -= 1
                self._changed.notify_all()

    def _blocked(self, name: str, key: Hashable) -> bool:
        old = self._attached.get(name)
        return old is not None and old.key != key and bool(old.places) and old.users > 0

    @staticmethod
    def _key(model: Model, conditioner: Conditioner) -> Hashable:
        file = conditioner.weights(model.folder)
        found = fingerprint(Path(file)) if file and Path(file).exists() else file
        return type(conditioner), conditioner.attach_key(model.folder), found


def attach(model: Model, conditioner: Conditioner, key: Hashable) -> Attachment:
    """Attach a conditioner's modules with their values; if that fails, the network is left as it was."""
    import torch

    from hy_core.dit import Port
    from hy_core.weights import load_port_weights

    dit = model.dit
    ports = [module for module in dit.modules() if isinstance(module, Port)]
    before = [set(port) for port in ports]

    def places() -> Places:
        return [
            (port, name) for port, old in zip(ports, before, strict=True) for name in port if name not in old
        ]

    file = conditioner.weights(model.folder)
    own = {} if file else owned_tensors(model, conditioner)
    try:
        if own:
            conditioner.attach_from_checkpoint(dit, own, model.folder)
        else:
            with torch.device("meta") if file else nullcontext():  # shapes only, if values come from a file
                conditioner.attach(dit, model.folder)
        if file:
            load_port_weights(dit, conditioner.name, file)
    except BaseException:
        Attachment(key, None, places()).detach()
        raise
    made = Attachment(key, fingerprint(Path(file)) if file else None, places())
    for port, name in made.places:
        port[name].to(dit.device, dit.dtype).eval().requires_grad_(False)
    return made


def owned_tensors(model: Model, conditioner: Conditioner) -> dict[str, Tensor]:
    """The tensors of the DiT's checkpoint that belong to a conditioner.

    Tensors of any shape by their names.
    """
    from hy_core.conditioner import Conditioner
    from hy_core.weights import load_owned

    if model.file is None or type(conditioner).owns_key is Conditioner.owns_key:
        return {}
    return load_owned(model.file, lambda key: conditioner.owns_key(key, model.folder))
