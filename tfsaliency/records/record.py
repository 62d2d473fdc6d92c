"""The record of a result: all that is needed to compute it again, and to tell what differs."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import PIL
import tensorflow as tf

from ..methods.plain import method_from_plain
from ..methods.table import Method
from ..version import __version__
from .digests import ModelDigest

# Of the norm of a map: between versions, a derivative at the corner of a ReLU may change.
TOLERANCE = 1e-2
# With oneDNN, of the norm of a map: integrated gradients differ by 3e-8 from trace to trace.
ROUNDING = 1e-6
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_bf16")  # that choose TensorFlow's kernels


@dataclass(frozen=True)
class Record:
    """The origin of a result: all that it was computed from.

    Parameters
    ----------
    call
        The function that computed it, such as "saliency_map".
    model
        The identity of the model.
    methods
        The methods with all their settings, see method_to_plain.
    parameters
        The options of the call, JSON values by name.
    inputs
        sha256 of the pixels of each image, before preprocessing; empty if the result contains them.
    versions
        The versions of the packages and of Python.
    device
        The processor, its vector instructions, the threads of an operation, oneDNN, and the GPUs,
        all of which rounding depends on.
    tolerance
        The norm of the difference of two maps, relative to that of the recorded one, up to which
        they count as the same on another machine or with other versions. On the same ones, results
        are compared bit by bit; with oneDNN, up to 1e-6.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> images = tfs.synthetic.make_shapes(1, seed=0).images
    >>> maps = tfs.saliency_map(tfs.synthetic.shapes_model(), images, "grad_cam")
    >>> maps.record.call, maps.record.methods[0]["composition"]["weights"]
    ('saliency_map', 'grad_cam')
    """

    call: str
    model: ModelDigest
    methods: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = TOLERANCE

    def build_methods(self) -> tuple[Method, ...]:
        """Return the methods.

        Raises
        ------
        OptionError
            If one has a function or an array of the caller.
        """
        return tuple(map(method_from_plain, self.methods))


def describe_versions() -> dict[str, str]:
    """Return the versions of the packages and of Python."""
    return {
        "tfsaliency": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


@functools.cache
def describe_device() -> Mapping[str, str]:
    """Return the processor, its vector instructions, threads, oneDNN, and the GPUs."""
    name, flags = _read_processor()
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "processor": name,
        "features": " ".join(each for each in _FEATURES if each in flags),
        "threads": str(tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "gpus": ", ".join(map(str, gpus)) or "none",
    }


def uses_onednn() -> bool:
    """Return whether TensorFlow computes with oneDNN: as told, else by the processor."""
    device = describe_device()
    by_default = "avx512_vnni" in device["features"] or "amx_bf16" in device["features"]
    return device["onednn"] == "1" or (device["onednn"] == "default" and by_default)


def name_device(device: Mapping[str, str] | None = None) -> str:
    """Return a device on one line; by default, this one."""
    facts = describe_device() if device is None else device
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


def _read_processor() -> tuple[str, Sequence[str]]:
    """Return the name of the processor and its flags, as far as the system tells them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            pairs = [line.partition(":")[::2] for line in file]
    except OSError:
        return platform.processor() or platform.machine(), ()
    facts = {key.strip(): value.strip() for key, value in reversed(pairs)}
    return facts.get("model name", platform.machine()), facts.get("flags", "").split()
