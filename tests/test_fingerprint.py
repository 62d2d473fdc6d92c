"""Fingerprints detect every change of a model that a trace depends on, and no other."""

import array
import functools
import gc
import weakref
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

from tfsaliency.engine.fingerprint import Fingerprint


class _Kind:
    factor = 1.0


@dataclass(slots=True)
class _Slotted:
    value: float


class _Thing:
    def get(self):
        return self.inner

    def __init__(self, inner=None):
        self.inner = inner


def _model():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3), layers.Flatten()])
    layer = model.layers[0]
    layer.factor, layer.function, layer.thing = 1.5, abs, _Thing()
    layer.pair, layer.table = (1, (2, "a")), {"of": [1, 2], "in": _Thing()}
    layer.numbers, layer.nested = np.arange(6.0).reshape(2, 3), _Thing(_Thing([1, {"a": 2.0}]))
    layer.chosen, layer.raw, layer.numbers8 = {1, 2}, bytearray(b"ab"), array.array("d", [1, 2])
    layer.part, layer.slotted = functools.partial(max, [_Thing(1)]), _Slotted(1.5)
    layer.method, layer.kind = _Thing(2).get, _Kind
    _Kind.factor = 1.0
    return model, layer


def _set(name, value):
    return lambda layer: setattr(layer, name, value)


CHANGES = {
    "a number": _set("factor", 2.5),
    "a function": _set("function", max),
    "an object": lambda layer: setattr(layer, "thing", _Thing()),
    "a tuple": _set("pair", (1, (2, "b"))),
    "in a dict": lambda layer: layer.table.update({"of": [1, 3]}),
    "in a list in a dict": lambda layer: layer.table["of"].append(3),
    "an object in a dict": lambda layer: layer.table.update({"in": _Thing()}),
    "an array in place": lambda layer: layer.numbers.__setitem__((1, 2), 7.0),
    "an array of another shape": lambda layer: setattr(layer.numbers, "shape", (3, 2)),
    "an attribute of an object": lambda layer: setattr(layer.thing, "inner", 3),
    "a new attribute of an object": lambda layer: setattr(layer.thing, "other", 3),
    "deep inside objects": lambda layer: layer.nested.inner.inner[1].update(a=3.0),
    "bytes in place": lambda layer: layer.raw.__setitem__(0, 99),
    "an array of Python in place": lambda layer: layer.numbers8.__setitem__(0, 9),
    "an argument of a partial": lambda layer: setattr(layer.part.args[0][0], "inner", 5),
    "a slot": lambda layer: setattr(layer.slotted, "value", 2.5),
    "the object of a method": lambda layer: setattr(layer.method.__self__, "inner", 5),
    "an attribute of a class": lambda layer: setattr(layer.kind, "factor", 3.0),
    "a set": lambda layer: layer.chosen.add(3),
    "one attribute more": _set("other", 1),
    "one less": lambda layer: delattr(layer, "factor"),
    "one for another": lambda layer: (delattr(layer, "factor"), setattr(layer, "other", 1.5)),
    "the dtype policy": lambda layer: vars(layer).update(
        _dtype_policy=keras.DTypePolicy("mixed_bfloat16")
    ),
    "the call": lambda layer: vars(layer).update(call=lambda x: x),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    model, layer = _model()
    structure = Fingerprint(model)
    assert structure.matches(model)
    CHANGES[change](layer)
    assert not structure.matches(model)
    assert Fingerprint(model).matches(model)


@pytest.mark.parametrize(
    "make", [float, np.float32, lambda i: (i, i, i), lambda i: _Thing(), lambda i: [i]]
)
def test_what_takes_the_place_of_something_that_is_gone_is_seen(make):
    """The replacement may have the same id."""
    model, layer = _model()
    for name in ("table", "numbers", "nested", "chosen", "thing", "raw", "numbers8", "part"):
        delattr(layer, name)
    del layer.slotted, layer.method, layer.kind
    # A layer without containers is compared by ids alone.
    for i in range(300, 320):
        vars(layer)["factor"] = make(i)
        structure, place = Fingerprint(model), id(vars(layer)["factor"])
        vars(layer)["factor"] = None
        others = [make(i + k) for k in range(1000, 1200)]  # one takes its place if it is free
        vars(layer)["factor"] = next((each for each in others if id(each) == place), others[-1])
        assert not structure.matches(model)


def test_what_says_nothing_about_the_maps_is_no_change():
    model, layer = _model()
    structure = Fingerprint(model)
    layer.pair, layer.factor = (1, (2, "a")), float("1.5")  # equal ones
    model.compile("sgd", "mse")
    x = np.ones((2, 4, 4, 3))
    model.fit(x, np.ones((2, 8)), verbose=0)
    model.predict(x, verbose=0)
    model.summary(print_fn=lambda text: None)
    layer.trainable = False
    assert structure.matches(model)


def test_it_keeps_nothing_alive():
    model, layer = _model()
    vars(layer)["owner"] = model  # as some layers do
    structure, there = Fingerprint(model), weakref.ref(model)
    del model, layer
    gc.collect()
    assert there() is None
    assert structure


def test_an_attribute_of_the_layers_own_class():
    class Scaled(layers.Layer):
        factor = 2.0

        def call(self, x):
            return x * self.factor

    model = keras.Sequential([keras.Input((4, 4, 3)), Scaled(), layers.Flatten()])
    structure = Fingerprint(model)
    assert structure.matches(model)
    Scaled.factor = 7.0
    assert not structure.matches(model)


class _Scale(keras.Operation):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class _Inner(layers.Layer):
    def __init__(self):
        super().__init__()
        self.factor = 3.0


class _Private:
    __slots__ = "__value"  # noqa: PLC0205  # Python allows it

    def __init__(self):
        self.__value = 1.0

    def change(self):
        self.__value = 2.0


def test_operations_layers_and_private_slots():
    scale, inner, private = _Scale(2.0), _Inner(), _Private()
    i = keras.Input((4, 4, 3))
    outer = layers.Activation("relu")
    outer.held, outer.private = _Thing(inner), private
    model = keras.Model(i, layers.Flatten()(outer(scale(i))))
    for change in (
        lambda: setattr(scale, "factor", 5.0),
        lambda: setattr(inner, "factor", 5.0),
        private.change,
    ):
        structure = Fingerprint(model)
        assert structure.matches(model)
        change()
        assert not structure.matches(model)


def test_classes_are_not_kept_alive():
    class Mine(layers.Layer):
        kind = 1

        def call(self, x):
            return x

    model, there = keras.Sequential([keras.Input((2, 2, 1)), Mine()]), weakref.ref(Mine)
    structure = Fingerprint(model)
    del model, Mine
    gc.collect()
    keras.utils.clear_session(free_memory=True)
    assert structure and there() is None
