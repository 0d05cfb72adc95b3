"""Interpret the pickle of a `torch.save` archive: plain values and descriptions of tensors, and no calls.

A pickle is a program. This interpreter carries out only the instructions that build plain values; it calls nothing that
the file names, so no file can run code here. Tensors become a `TensorRecord`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

#: More instructions than this are no list of tensors: 1,264 tensors take about 50,000.
MAX_INSTRUCTIONS = 1_000_000

_STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_BUILTINS = ("builtins", "__builtin__")
#: Classes whose objects trainers save beside the weights: a placeholder takes their place.
_IGNORED = {
    ("argparse", "Namespace"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("datetime", "datetime"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("types", "SimpleNamespace"),
    ("_codecs", "encode"),
    *(
        (module, name)
        for module in _BUILTINS
        for name in ("set", "frozenset", "dict", "list", "int", "complex")
    ),
}
_TENSORS = {
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
}


class ArchiveError(Exception):
    """An archive is damaged; the message says where."""


class UnsafeArchiveError(Exception):
    """An archive names a Python object that is neither a tensor nor plain data; the message is its name."""


@dataclass(frozen=True, eq=False)
class Storage:
    """The values of one or more tensors: `nbytes` bytes of `dtype`, in the archive under the name `key`."""

    key: str
    dtype: torch.dtype
    nbytes: int


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A tensor as an archive describes it; `offset` and `stride` count elements of `dtype`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


class _Placeholder:
    """Stands for an object that isn't built."""


def interpret(file: BinaryIO) -> Any:
    """Read one pickle from a file's position on and return what it describes.

    Keys of dictionaries that aren't plain values, and objects of a few harmless classes, are replaced by placeholders.
    Raises ArchiveError for a damaged pickle or one of over MAX_INSTRUCTIONS, UnsafeArchiveError for one that names
    any other object.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            if count > MAX_INSTRUCTIONS:
                raise ArchiveError(f"its list of tensors has over {MAX_INSTRUCTIONS:,} instructions")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        text = " ".join(str(error).split())[:60]
        raise ArchiveError(f"its list of tensors can't be read: {text or type(error).__name__}") from None
    raise ArchiveError("its list of tensors ends too early")


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction. Raises ArchiveError for one that this interpreter hasn't."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif (action := _ACTIONS.get(name)) is not None:
            action(self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ArchiveError(f"its list of tensors has the instruction {name}")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def push_mark(self, make: Callable[[list[Any]], Any]) -> None:
        items = self.pop_mark()
        self.stack.append(make(items))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("a tuple of nothing")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.stack.append(tuple(items))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(_pairs(items))
        elif not isinstance(target, _Placeholder):
            raise TypeError("items of something that has none")

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, _Placeholder):
            raise TypeError("items of something that has none")

    def find_global(self, module: str, name: str) -> None:
        """Push what a name stands for: a dtype, or a marker that `call` understands."""
        dtype = getattr(torch, name, None) if module == "torch" and name.isidentifier() else None
        if isinstance(dtype, torch.dtype):
            self.stack.append(dtype)
            return
        known = (
            (module, name) in _IGNORED
            or (module == "collections" and name == "OrderedDict")
            or (module == "torch" and name in ("Size", *_STORAGES))
            or (module == "torch.storage" and name in ("UntypedStorage", "TypedStorage"))
            or (module == "torch._utils" and name in _TENSORS)
        )
        if not known:
            raise UnsafeArchiveError(f"{module}.{name}"[:100])
        self.stack.append(_Global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError("a global without a name")
        self.find_global(module, name)

    def call(self, _: Any) -> None:
        """Push what a call would give, for the few functions that describe tensors and containers."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise TypeError("a call without arguments")
        if isinstance(function, _Placeholder):
            self.stack.append(_Placeholder())
            return
        if not isinstance(function, _Global):
            raise TypeError("a call of no function")
        if function.module == "torch._utils":
            self.stack.append(_tensor(function.name, arguments))
        elif function.name == "OrderedDict":
            pairs = arguments[0] if arguments else []
            self.stack.append(_pairs([part for pair in pairs for part in (pair[0], pair[1])]))
        elif function.name == "Size":
            self.stack.append(arguments[0])
        else:
            self.stack.append(_Placeholder())

    def new_object(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not (isinstance(arguments, tuple) and isinstance(kind, _Global)):
            raise TypeError("an object of no class")
        self.stack.append(_pairs([]) if kind.name == "OrderedDict" else _Placeholder())

    def build(self, _: Any) -> None:
        self.stack.pop()  # attributes: of no use here

    def storage(self, _: Any) -> None:
        """Push the storage that a persistent id describes."""
        _, kind, key, _, count, *_ = self.stack.pop()
        dtype = _STORAGES[kind.name]
        if not (isinstance(key, str) and isinstance(count, int) and count >= 0):
            raise TypeError("a storage without a name or a size")
        self.stack.append(Storage(key, dtype, count * dtype.itemsize))


def _tensor(function: str, arguments: tuple[Any, ...]) -> Any:
    if function.startswith("_rebuild_parameter"):
        return arguments[0]
    storage, offset, shape, stride = arguments[:4]
    dtype = arguments[6] if function == "_rebuild_tensor_v3" else storage.dtype
    numbers = (offset, *shape, *stride)
    if not (
        isinstance(storage, Storage)
        and isinstance(dtype, torch.dtype)
        and all(isinstance(one, int) and 0 <= one < 1 << 62 for one in numbers)
        and len(shape) == len(stride)
    ):
        raise TypeError("a tensor without a shape")
    return TensorRecord(storage, dtype, offset, tuple(shape), tuple(stride))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn. Hashing a nested tuple may take for ever, so only plain values stay keys."""
    if len(items) % 2:
        raise ValueError("a key without a value")
    plain = (str, int, float, bool, bytes, type(None))
    return {
        key if isinstance(key, plain) else _Placeholder(): value
        for key, value in zip(items[::2], items[1::2], strict=True)
    }


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _append_item(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    machine.append([value])


def _pop(machine: _Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append(_Placeholder()),
    "MARK": _Machine.mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "DICT": lambda machine, _: machine.push_mark(_pairs),
    "LIST": lambda machine, _: machine.push_mark(list),
    "TUPLE": lambda machine, _: machine.push_mark(tuple),
    "FROZENSET": lambda machine, _: machine.push_mark(lambda _: _Placeholder()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "MEMOIZE": _memoize,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "APPEND": _append_item,
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_mark()),
    "GLOBAL": lambda machine, argument: machine.find_global(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}
