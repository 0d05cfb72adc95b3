"""A cache of named values that several threads may ask at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock, RLock
from typing import Any, TypeVar

T = TypeVar("T")


class KeyedCache:
    """One value for each name, made when it is first asked for.

    Names start with the plugin's own: `cache.get(f"{self.name}.model", make, key)`. A name holds one value at a time,
    so that memory stays bounded. While one thread makes a value, others that ask for the same name wait for it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._locks: dict[str, RLock] = {}
        self._values: dict[str, tuple[Hashable, Any]] = {}

    def get(self, name: str, make: Callable[[], T], key: Hashable = None) -> T:
        """Return the value of `name`; if there is none for `key`, drop the old one and call `make()` for another."""
        with self._lock:
            lock = self._locks.setdefault(name, RLock())
        with lock:
            found = self._values.get(name)
            if found is None or found[0] != key:
                del found  # the old value is freed before the new one takes its memory
                self._values.pop(name, None)
                self._values[name] = key, make()
            value: T = self._values[name][1]
            return value

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()

    def __deepcopy__(self, memo: object) -> KeyedCache:
        """A copy of what holds a cache shares it."""
        return self
