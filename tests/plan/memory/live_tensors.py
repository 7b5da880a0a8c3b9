"""What PyTorch really keeps and really allocates, counted on the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """Address of the storage object → storage, for every tensor in a nest of values."""
    found = (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
    return {storage._cdata: storage for storage in found}


def saved_for_backward(model: torch.nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes of the tensors autograd keeps, without the model's own parameters and buffers."""
    own = storages([*model.parameters(), *model.buffers()])
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


class Peak(TorchDispatchMode):
    """While active: bytes of storages made since it began, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.sizes: dict[int, int] = {}
        self.largest: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = storages((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        for key, storage in storages(result).items():
            if key not in given and key not in self.sizes:
                self._made(key, storage)
        return result

    def _made(self, key: int, storage: torch.UntypedStorage) -> None:
        self.sizes[key] = storage.nbytes()
        self.largest.append(storage.nbytes())
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
