"""The public names: sorted, documented with shapes, errors and source, and examples that run."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import typing
from pathlib import Path

import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import arrays, diagnostics, image_io, synthetic, tables
from tfsaliency.engine import precision
from tfsaliency.methods import rules
from tfsaliency.models.loading import load_model
from tfsaliency.sanity import plans
from tfsaliency.synthetic import closed_form, shapes

PUBLIC = [name for name in tfs.__all__ if name not in ("models", "synthetic")]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(tfs, name))]
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(tfs, name))]
WORLDS = [name for name in synthetic.__all__ if inspect.isfunction(getattr(synthetic, name))]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tfs.__path__, "tfsaliency.")
    if not module.name.endswith("__main__")
)


def test_all_is_sorted_and_there():
    assert tfs.__all__ == sorted(tfs.__all__)
    assert all(hasattr(tfs, name) for name in tfs.__all__)
    assert dir(tfs) == sorted([*tfs.__all__, "__version__"])
    assert synthetic.__all__ == sorted(synthetic.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        tfs.no_such_name  # noqa: B018


def test_tables_are_keyed_by_the_names_of_their_rows():
    assert all(name == method.name for name, method in tfs.METHODS.items())
    assert all(name == rule.__name__ for name, rule in tfs.RULES.items())


def test_every_public_name_is_a_function_a_class_or_a_table():
    others = set(PUBLIC) - set(FUNCTIONS) - set(CLASSES)
    assert others == {
        "CONTROLS",
        "METHODS",
        "METRICS",
        "RANDOMIZERS",
        "RED",
        "RULES",
        "SCORES",
        "SIMILARITIES",
    }


def _documented():
    for name in FUNCTIONS:
        yield name, getattr(tfs, name)
    for network in (tfs.models.squeezenet, tfs.models.efficientnet_lite):
        for name in network.__all__:
            if name != "read_weights":
                yield f"models.{name}", getattr(network, name)
    for name in WORLDS:
        yield f"synthetic.{name}", getattr(synthetic, name)


@pytest.mark.parametrize(
    ("name", "function"), _documented(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_function_documents_parameters_shapes_errors_and_source(name, function):
    text = inspect.getdoc(function)
    sections = re.findall(r"^(\w+)\n-+$", text, flags=re.MULTILINE)
    signature = inspect.signature(function).parameters
    for section in ["Parameters"] * bool(signature) + ["Returns", "Raises", "Examples"]:
        assert section in sections, f"{name}: no section {section}"
    parameters = text.split("Returns\n")[0].split("Parameters\n")[-1]
    for parameter in signature:
        assert re.search(rf"^(.*, )?{parameter}(, .*)?( : .*)?$", parameters, re.MULTILINE), (
            parameter
        )
    if not name.startswith(("randomize_", "clear_")):  # weights have any shape
        assert re.search(r"\(n, |\(h, w|\(\.\.\., 3\)|of images \(", text), f"{name}: no shapes"
    if name not in ("load_images", "overlay", "clear_traces", "on_logits") and not name.startswith(
        "models."
    ):
        assert "References" in sections, f"{name}: no source"


@pytest.mark.parametrize("name", FUNCTIONS + CLASSES)
def test_a_public_name_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(tfs, name))


@pytest.mark.parametrize("name", synthetic.__all__)
def test_a_name_of_worlds_has_an_example_or_is_a_table(name):
    value = getattr(synthetic, name)
    assert isinstance(value, (tfs.tables.Table, tuple)) or ">>> " in inspect.getdoc(value)


@pytest.mark.parametrize("name", ["tfsaliency", *MODULES])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    with np.printoptions():
        results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.failed == 0


def test_every_module_class_and_function_has_a_docstring():
    root = Path(tfs.__file__).parent
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in ast.walk(tree):
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and node.col_offset == 0:
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_errors_are_one_tree():
    errors = [getattr(tfs, name) for name in PUBLIC if name.endswith("Error")]
    assert all(issubclass(error, tfs.TfSaliencyError) for error in errors)
    assert issubclass(tfs.TfSaliencyError, ValueError)
    for error in (
        tfs.NoReluError,
        tfs.UncoveredReluError,
        tfs.UncoveredLayerError,
        tfs.OpaqueModelError,
    ):
        assert issubclass(error, tfs.ModelError)


def test_the_tests_keep_out_of_the_home_folder():
    assert not os.environ["KERAS_HOME"].startswith(str(Path.home() / ".keras"))


TABLES = {
    "METHODS": (tfs.METHODS, tables.MethodName),
    "RULES": (tfs.RULES, rules.RuleName),
    "SCORES": (tfs.SCORES, tables.ScoreName),
    "RANDOMIZERS": (tfs.RANDOMIZERS, tables.RandomizerName),
    "SIMILARITIES": (tfs.SIMILARITIES, tables.SimilarityName),
    "METRICS": (tfs.METRICS, tables.MetricName),
    "VARIANTS": (synthetic.VARIANTS, shapes.VariantName),
    "CLOSED_FORM": (synthetic.CLOSED_FORM, closed_form.ClosedFormName),
    "REDUCTIONS": (arrays.REDUCTIONS, tables.ReductionName),
    "PLANS": (plans.PLANS, tables.PlanName),
    "ON_PROBLEM": (diagnostics.ON_PROBLEM, diagnostics.OnProblem),
    "FITS": (image_io.FITS, tables.Fit),
    "PRECISIONS": (precision.PRECISIONS, precision.Precision),
}


@pytest.mark.parametrize("name", TABLES)
def test_an_editor_completes_the_names_of_a_table(name):
    known, literal = TABLES[name]
    assert typing.get_args(literal) == tuple(known)


@pytest.mark.parametrize("name", [n for n in TABLES if isinstance(TABLES[n][0], tables.Table)])
def test_a_table_prints_a_line_for_each_name_and_cannot_be_changed(name):
    known = TABLES[name][0]
    lines = repr(known).splitlines()
    assert [line.split("  ")[0] for line in lines] == list(known)
    assert all(len(line.split("  ", 1)[1].strip()) > 5 for line in lines)
    with pytest.raises(TypeError):
        known["mine"] = known[next(iter(known))]
    with pytest.raises(TypeError):
        del known[next(iter(known))]
    assert "mine" not in known and 3 not in known and ["mine"] not in known


@pytest.mark.parametrize(
    ("call", "received", "nearest"),
    [
        (lambda: tfs.saliency_map(None, None, "GradCAM"), "'GradCAM'", "grad_cam"),
        (lambda: tfs.saliency_map(None, None, ["Guided-Backprop"]), "Guided", "guided_backprop"),
        (lambda: tfs.saliency_map(None, None, b"gradient"), "b'gradient'", "gradient"),
        (lambda: tfs.Method("mine", "zeilerfergus"), "zeilerfergus", "zeiler_fergus"),
        (lambda: tfs.prepare(lambda x: x, score="LogProbability"), "Log", "log_probability"),
        (lambda: synthetic.make_shapes(1, 0, variant="Null Patch"), "Null Patch", "null_patch"),
        (lambda: load_model("VGG-16"), "'VGG-16'", "vgg16"),
        (lambda: load_model("ResNet_50"), "'ResNet_50'", "resnet50"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(call, received, nearest):
    with pytest.raises(tfs.OptionError, match=received) as caught:
        call()
    assert f"Did you mean '{nearest}'?" in str(caught.value)


def test_an_unknown_name_lists_all_known_ones():
    with pytest.raises(tfs.OptionError) as caught:
        tfs.saliency_map(None, None, "nothing like it")
    assert str(caught.value).endswith(f"Known: {', '.join(tfs.METHODS)}.")


def test_gradient_map_is_the_originals_name_for_the_same_function():
    assert tfs.gradient_map is tfs.saliency_map


def test_a_composition_is_taken_for_a_method_under_its_own_name():
    model, images = synthetic.shapes_model(), synthetic.make_shapes(1, seed=0).images

    def halved(attribute, points, image_index):
        return attribute(points / 2, image_index)

    class TwiceTheGradient:
        def __call__(self, attribute, points, image_index):
            found = attribute(points, image_index)
            return found._replace(values=2 * found.values)

    asked = [
        "gradient",
        tfs.SmoothGrad(2, statistic="variance"),
        tfs.CAM("layer_cam", "fire3-concat", "guided_backprop"),
        tfs.InputXGradient(inner=tfs.SmoothGrad(2)),
        halved,
        TwiceTheGradient(),
    ]
    maps = tfs.saliency_map(model, images, asked)
    names = ["var_grad", "layer_cam", "input_x_gradient", "halved", "twice_the_gradient"]
    assert list(maps) == ["gradient", *names]
    np.testing.assert_allclose(maps["twice_the_gradient"], 2 * maps["gradient"], rtol=1e-6)
    rule = tfs.Method(
        "mine", "gradient", tfs.CAM("layer_cam", "fire3-concat", tfs.RULES["guided_backprop"])
    )
    assert np.array_equal(tfs.saliency_map(model, images, rule)["mine"], maps["layer_cam"])
    assert tfs.METHODS["var_grad"].channel_reduction == "sum"
    with pytest.raises(tfs.OptionError, match="different names"):
        tfs.saliency_map(model, images, ["smooth_grad", tfs.SmoothGrad(2)])
