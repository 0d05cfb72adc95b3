"""A small VAE, and a count of the memory that tensors take."""

from __future__ import annotations

import weakref

import torch
from hy_core.vae import VAE, VAEConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = VAEConfig(channels=(8, 8, 16, 16), latent_channels=4, layers=1, groups=4)


def make(config=SMALL, seed=0):
    """A VAE whose every parameter matters."""
    torch.manual_seed(seed)
    vae = VAE(config)
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return vae.requires_grad_(False)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Memory(TorchDispatchMode):
    """Bytes of the tensors alive that were made meanwhile, and the most there were."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.largest, self.seen = 0, 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        old = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in old and storage._cdata not in self.seen:
                    self.count(storage)
        return result

    def count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        self.seen[key] = weakref.ref(storage, lambda _: self.free(key, size))
        self.alive += size
        self.largest = max(self.largest, size)
        self.peak = max(self.peak, self.alive)

    def free(self, key, size):
        del self.seen[key]
        self.alive -= size
