"""The most recently used tensors, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


class Recent:
    """Items by key, each some tensors by name; the least recently used are dropped over `most` bytes.

    An instance that is sent to another process arrives empty.
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._items: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()

    def get(self, key: str, make: Callable[[str], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Return the tensors of a key, of any shape, by name; `make` is called where they aren't held."""
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key]
        item = make(key)
        self._items[key] = item
        self.bytes += _size(item)
        while self.bytes > self.most and len(self._items) > 1:
            self.bytes -= _size(self._items.popitem(last=False)[1])
        return item

    def __getstate__(self) -> dict[str, Any]:
        return {"most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["most"])  # type: ignore[misc]


def _size(item: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in item.values())
