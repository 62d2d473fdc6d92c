"""The graph engine: modified ReLUs in the traced graph of any model.

The forward pass is traced, its function calls are inlined, and each ReLU op is marked with a
gradient function of this module. When the graph is imported into another and differentiated there,
marked ops follow the rule, also in loops and branches, because each backward pass builds their
gradients anew. Marks have no effect in functions that cannot be inlined; the census counts ReLUs
there as not reached.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer as _grappler

from ..errors import ModelError
from ..methods.rules import Site
from .clone import active_rule, forget_custom_gradients
from .coverage import CUSTOM, MARK, MARKED, match_site
from .graph_nodes import CONTROL_FLOW, Inner, inside, make_nodes
from .layer_outputs import LayerForward
from .model_io import Forward
from .relu_patterns import RELU, kind

# Attributes that prevent inlining of a function.
_KEEPS_WHOLE = ("_XlaMustCompile", "_noinline", "api_implements")
_LOWER = "_lower_using_switch_merge"  # expand a loop or a branch into the surrounding graph


class Retraced(NamedTuple):
    """The forward pass of a model as a graph in which each ReLU op is marked.

    Parameters
    ----------
    forward
        The same function, to be called inside a graph being traced.
    custom_gradients
        Whether the model uses tf.custom_gradient. Such gradients are lost: the operations inside
        are differentiated instead.
    """

    forward: Forward | LayerForward
    custom_gradients: bool


def retrace(
    forward: Forward | LayerForward, inputs: Sequence[tf.TensorSpec], marks: bool = True
) -> Retraced:
    """Trace a forward pass, inline its function calls and mark its ReLUs.

    Parameters
    ----------
    forward
        Flat inputs -> outputs, or a pair of these and tensors of a layer.
    inputs
        Shape and dtype of each input.
    marks
        Whether to mark the ReLUs.
    """
    traced = tf.function(forward, autograph=False).get_concrete_function(list(inputs))
    forget_custom_gradients(traced.graph)  # this graph is not differentiated
    graph = _inlined(traced)
    custom = _mark(graph, marks)
    _drop_placeholders(graph)
    used = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}

    def imported(arrays: Sequence[tf.Tensor]) -> Any:
        # Variables are captured again, so that the imported graph reads them at every call.
        capture = tf.compat.v1.get_default_graph().capture
        given = [*arrays, *map(capture, traced.captured_inputs)]
        known = {
            tensor.name: value
            for tensor, value in zip(traced.inputs, given, strict=True)
            if tensor.op.name in used
        }
        wanted = [output.name for output in traced.outputs]
        returned = tf.graph_util.import_graph_def(
            graph, input_map=known, return_elements=wanted, name=""
        )
        for tensor, output in zip(returned, traced.outputs, strict=True):
            tensor.set_shape(output.shape)
        outputs, *features = returned
        # A function returns an Identity of its result, which is on no path to the outputs.
        return (outputs, tuple(each.op.inputs[0] for each in features)) if features else outputs

    return Retraced(imported, custom)


def differentiate_marked(
    scores: tf.Tensor, sources: Sequence[tf.Tensor], upstream: tf.Tensor
) -> list[tf.Tensor | None]:
    """Differentiate scores with marked gradients, which a tape would ignore."""
    try:
        gradients: list[tf.Tensor | None] = tf.gradients(scores, sources, grad_ys=upstream)
        return gradients
    except LookupError as error:  # raised for an op without a gradient
        raise ModelError(
            f"Cannot differentiate the traced graph of the model: {error} Use methods='gradient', "
            "or write the model of layers that a clone can be made of."
        ) from error


@tf.RegisterGradient(MARKED.decode())
def _gradient_of_marked(op: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """Apply the rule of the backward pass being built to a marked op."""
    rule = active_rule(op.name)
    if rule is None:
        raise ModelError(
            "Only tfsaliency can differentiate this graph, because its gradients are modified. "
            "Differentiate the model itself."
        )
    return rule(upstream, Site(op.outputs[0], lambda u: _RELU_GRADIENTS[op.type](op, u)))


_RELU_GRADIENTS: dict[str, Callable[[tf.Operation, tf.Tensor], tf.Tensor]] = {
    "Relu": lambda op, u: tf.raw_ops.ReluGrad(gradients=u, features=op.outputs[0]),
    "Relu6": lambda op, u: tf.raw_ops.Relu6Grad(gradients=u, features=op.outputs[0]),
    "LeakyRelu": lambda op, u: tf.raw_ops.LeakyReluGrad(
        gradients=u, features=op.inputs[0], alpha=op.get_attr("alpha")
    ),
}


def _inlined(traced: Any) -> Any:
    """Return the GraphDef of a concrete function with its function calls inlined.

    Loops and branches stay; their bodies get new names, because they will change.
    """
    graph = traced.graph.as_graph_def()
    functions = graph.library.function
    for owner in (*functions, *_definitions(graph)):
        for name in _KEEPS_WHOLE:
            owner.attr.pop(name, None)
    _set_lowering(graph, False)  # else they are expanded, and cannot be differentiated
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=traced.graph)
    ends = meta.collection_def["train_op"].node_list.value
    ends.extend(tensor.name for tensor in (*traced.inputs, *traced.outputs))
    config = tf.compat.v1.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1  # small graphs, too
    rewrite.optimizers.append("function")
    rewrite.function_optimization = rewrite.AGGRESSIVE
    graph = _grappler.OptimizeGraph(config, meta)
    _set_lowering(graph, True)
    _rename_functions(graph)
    return graph


def _set_lowering(graph: Any, lowered: bool) -> None:
    for node in _definitions(graph):
        if node.op in CONTROL_FLOW:
            node.attr[_LOWER].b = lowered


def _rename_functions(graph: Any) -> None:
    suffix = f"_tfsaliency_{uuid.uuid4().hex}"
    known = {function.signature.name for function in graph.library.function}
    for function in graph.library.function:
        function.signature.name += suffix
    for node in _definitions(graph):
        for attribute in node.attr.values():
            for reference in (attribute.func, *attribute.list.func):
                if reference.name in known:
                    reference.name += suffix


def _drop_placeholders(graph: Any) -> None:
    """Remove placeholders, which import maps to other tensors; XLA does not compile them."""
    kept = [node for node in graph.node if node.op != "Placeholder"]
    names = {b"loc:@" + node.name.encode() for node in kept}
    for node in kept:
        if "_class" in node.attr:
            beside = node.attr["_class"].list.s
            beside[:] = [name for name in beside if name in names]
    del graph.node[:]
    graph.node.extend(kept)


def _definitions(graph: Any) -> list[Any]:
    """Return the NodeDefs of a GraphDef and of its functions."""
    inner = (node for function in graph.library.function for node in function.node_def)
    return [*graph.node, *inner]


def _mark(graph: Any, marks: bool) -> bool:
    """Mark the ReLUs of a GraphDef, if told; return whether custom gradients were dropped."""
    dropped = False
    main = [
        Inner(node.name, node, definition, True)
        for node, definition in zip(make_nodes(graph.node), graph.node, strict=True)
    ]
    library = {function.signature.name: function for function in graph.library.function}
    for inner in [*main, *inside(main, library)]:
        attributes = inner.definition.attr
        if marks and kind(inner.node) == RELU:
            attributes[MARK].s = MARKED
        elif MARK in attributes and attributes[MARK].s.startswith(CUSTOM.encode()):
            del attributes[MARK]
            # An AttributionReLU contains a ReLU op, which is marked: nothing is lost.
            dropped |= match_site(inner.definition.input[0]) is None
    return dropped
