"""Reader of tensors in PyTorch files, without PyTorch and without running code in the file.

torch.save writes a pickle: a program for a stack machine that can call any function by name. Here,
the standard library only parses the program. `_evaluate` executes the few instructions that a
dictionary of tensors needs, and any other instruction or name is an error.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import WeightsError

_MOST_AXES, _MOST_ELEMENTS = 32, 2**40
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.save's format without zip


@dataclass(frozen=True)
class _Storage:
    """A one-dimensional array of the file: its dtype and key."""

    dtype: np.dtype[Any]
    key: str


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; the fields are the arguments of torch._utils._rebuild_tensor_v2."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool = False
    hooks: Any = None


# The names that a file may contain. Only OrderedDict and _Tensor are called, in _call.
_KNOWN: dict[str, Any] = {
    "collections OrderedDict": OrderedDict,
    "torch._utils _rebuild_tensor_v2": _Tensor,
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}


def read_torch_file(path: str | PathLike[str], sha256: str | None = None) -> dict[str, Array]:
    """Read a state dict that torch.save wrote in its older format.

    Parameters
    ----------
    path
        A .pth file.
    sha256
        The expected checksum of the file, in hexadecimal; None accepts any file.

    Returns
    -------
    The tensors by name, as float32 or int64 arrays in C order.

    Raises
    ------
    WeightsError
        If the file cannot be read, has another checksum, is truncated, or holds anything but an
        ordered dictionary of tensors. Nothing in the file is executed.
    """
    if not isinstance(path, (str, PathLike)):
        raise WeightsError(f"Expected the path of a weights file. Received: {path!r:.100}.")
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("not a regular file")
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(
            f"Cannot read the weights file {path}. Expected a file that torch.save wrote. "
            f"Received: {error.strerror or error}."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path} is not the expected weights file. Expected sha256 {sha256}. "
            f"Received: {len(data)} bytes of sha256 {found}."
        )
    try:
        return _read(io.BytesIO(data))
    # Damaged bytes make pickletools and NumPy raise anything, MemoryError included.
    except Exception as error:
        reason = str(error) if isinstance(error, WeightsError) else "a damaged file"
        raise WeightsError(
            f"Cannot read the weights file {path}. Expected an ordered dictionary of tensors that "
            f"torch.save wrote in its older format. Received: {reason:.300}."
        ) from error


def _read(file: io.BytesIO) -> dict[str, Array]:
    if file.getvalue().startswith(b"PK"):
        raise WeightsError("the zip format of PyTorch 1.6 and later")
    head = [_evaluate(file) for _ in range(3)]
    if head[:2] != [_MAGIC, _PROTOCOL] or not head[2]["little_endian"]:
        raise WeightsError("another format")
    tensors, keys = _evaluate(file), _evaluate(file)
    if not isinstance(tensors, OrderedDict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise WeightsError("a value other than a dictionary of tensors")
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages = {key: _read_storage(file, dtypes[key]) for key in keys if isinstance(key, str)}
    if file.read(1):
        raise WeightsError("more bytes than the tensors have")
    if sum(math.prod(t.shape) for t in tensors.values()) > sum(map(len, storages.values())):
        raise WeightsError("tensors with more elements than their storages")
    return {name: _view(storages[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _evaluate(file: io.BytesIO) -> Any:
    """Return the value of the pickle that begins at the file's position."""
    machine = _Machine([], [], {})
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            break
        if opcode.name not in _INSTRUCTIONS:
            raise WeightsError(
                f"it has the instruction {opcode.name}, which is not part of a tensor"
            )
        _INSTRUCTIONS[opcode.name](machine, argument)
    return machine.stack.pop()


@dataclass(frozen=True)
class _Machine:
    """The state of a pickle's stack machine."""

    stack: list[Any]
    marks: list[int]
    memo: dict[int, Any]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Take that many values from the stack."""
        if not 0 <= count <= len(self.stack):
            raise WeightsError("it takes more values than there are")
        start = len(self.stack) - count
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> list[Any]:
        """Take the values that were pushed since the last mark."""
        return self.pop(len(self.stack) - self.marks.pop())

    def extend(self, values: list[Any]) -> None:
        self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        # Other keys than strings may take forever to hash, or overflow the stack of the process.
        if not all(isinstance(key, str) for key in values[::2]):
            raise WeightsError("a name that is not a string")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def store(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


# The effect of each instruction on the machine, given its argument.
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "BINUNICODE": _Machine.push,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.pop_to_mark()),
    "BINPUT": _Machine.store,
    "LONG_BINPUT": _Machine.store,
    "BINGET": lambda m, place: m.push(m.memo[place]),
    "LONG_BINGET": lambda m, place: m.push(m.memo[place]),
    "GLOBAL": lambda m, name: m.push(_look_up(name)),
    "BINPERSID": lambda m, _: m.push(_storage(*m.pop(1))),
    "REDUCE": lambda m, _: m.push(_call(*m.pop(2))),
    "BUILD": lambda m, _: m.pop(1),  # attributes of the dictionary, not tensors
}


def _storage(identity: tuple[Any, ...]) -> _Storage:
    kind, dtype, key, _, size, view = identity
    known = kind == "storage" and isinstance(dtype, np.dtype) and isinstance(key, str)
    if not known or not isinstance(size, int) or view is not None:
        raise WeightsError("a storage that is not an array of numbers")
    return _Storage(dtype, key)


def _look_up(name: str) -> Any:
    if name not in _KNOWN:
        raise WeightsError(f"it names {name.replace(' ', '.')}, which is not part of a tensor")
    return _KNOWN[name]


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    if function is _Tensor:
        tensor = _Tensor(*arguments)
        numbers = (tensor.offset, *tensor.shape, *tensor.strides)
        if not isinstance(tensor.storage, _Storage) or len(tensor.shape) > _MOST_AXES:
            raise WeightsError("a tensor without a storage, or with too many axes")
        if not all(type(number) is int and 0 <= number < _MOST_ELEMENTS for number in numbers):
            raise WeightsError("a tensor that reaches beyond its storage")
        return tensor
    if function is OrderedDict and arguments == ():
        return OrderedDict()
    raise WeightsError("it calls a function that is not part of a tensor")


def _read_storage(file: io.BytesIO, dtype: np.dtype[Any]) -> Array:
    """Read a storage: its number of elements in eight bytes, then the elements."""
    head = file.read(8)
    size = int.from_bytes(head, "little")
    data = file.read(size * dtype.itemsize)
    if len(head) < 8 or len(data) < size * dtype.itemsize:
        raise WeightsError("fewer bytes than the tensors need")
    return np.frombuffer(data, dtype)


def _view(storage: Array, tensor: _Tensor) -> Array:
    """Return the tensor of a storage in C order; as_strided does not check bounds."""
    steps = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    size = math.prod(tensor.shape)
    last = tensor.offset + sum(steps) if size else -1
    if last >= len(storage) or size > len(storage):
        raise WeightsError("a tensor that reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)
