"""Census of a traced model's ReLUs, and of those that a modified rule reaches.

The census is taken of the differentiated graph, between the forward and the backward pass, so it
counts the operations that run, however the model is written. Only operations on a path from the
images to the score count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from ..display.drawing import draw
from ..errors import NoReluError, UncoveredReluError
from ..methods.cell_grids import CellGrid
from ..methods.rules import gradient
from .graph_nodes import Inner, Node, find_influenced, inside, make_node
from .relu_patterns import GATE, RELU, SMOOTH, WRITTEN, kind, other_halves

# Scopes by which the census knows the ops of an AttributionReLU; the second is for leaky ones.
SITE_SCOPE = "tfsaliency_attribution_relu"
LEAKY_SCOPE = "tfsaliency_attribution_leaky_relu"
_SITE = re.compile(rf"(?:.*/)?(?:{SITE_SCOPE}|{LEAKY_SCOPE})(?:_\d+)?(?=/)")

# The graph engine sets this attribute of a ReLU op to the name of its gradient function.
MARK, MARKED = "_gradient_op_type", b"TfsaliencyRelu"
CUSTOM = "CustomGradient-"  # TensorFlow's names for gradients of tf.custom_gradient


EngineName = Literal["model", "clone", "graph"]


class Census(NamedTuple):
    """The ReLUs between the images and the score of one traced model, by name.

    Parameters
    ----------
    sites
        ReLUs that follow the rule: one for each call of an AttributionReLU, or each marked op.
    others
        ReLUs that do not.
    gates
        ReLUs that are part of a hard sigmoid; they keep their own derivative.
    smooth
        ELUs, SELUs and CELUs, which are not ReLUs and keep their own derivative.
    leaky
        Sites and others with a slope below zero.
    hidden
        Others that are AttributionReLUs inside functions. They would follow no rule or a wrong one,
        even for the plain gradient.
    direct
        Sites in the graph itself, outside loops and branches.
    """

    sites: tuple[str, ...]
    others: tuple[str, ...]
    gates: tuple[str, ...]
    smooth: tuple[str, ...]
    leaky: tuple[str, ...]
    hidden: tuple[str, ...]
    direct: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """The number of a model's ReLUs that a rule governs.

    Parameters
    ----------
    rule : str
        The method's name.
    relus : int
        The number of ReLU operations between the images and the score, without gates.
    reached : int
        The number that the rule governs, always equal to `relus`; otherwise an error is raised.
    engine : str
        The way rules are applied: "clone" (a clone of the model with AttributionReLU layers),
        "graph" (the traced graph with marked ReLU ops) or "model" (the model itself).
    leaky : int
        The number of ReLUs with a slope below zero.
    gates : tuple of str
        The names of ReLU operations that clip a hard sigmoid. They gate another signal, and keep
        their own derivative.
    smooth : tuple of str
        The names of ELU, SELU and CELU operations, which keep their own derivative.
    grids : tuple of CellGrid
        For class activation maps and attention, the layer, its cells, and where they look in the
        image.
    layers : mapping of str to int
        For relevance, the number of operations by rule.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> print(tfs.Coverage("guided_backprop", relus=26, reached=26))
    guided_backprop: 26 of 26 ReLUs (clone)
    """

    rule: str
    relus: int
    reached: int
    engine: EngineName = "clone"
    leaky: int = 0
    gates: tuple[str, ...] = ()
    smooth: tuple[str, ...] = ()
    grids: tuple[CellGrid, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        if self.layers:
            listed = ", ".join(f"{number} by {rule}" for rule, number in self.layers.items())
            return f"{self.rule}: {sum(self.layers.values())} operations, {listed} (graph)"
        counted = f"{self.reached} of {self.relus}" if self.relus else "no"
        leaky = f", {self.leaky} of them leaky" if self.leaky else ""
        kept = self.kept
        verb = "keeps its" if len(self.gates) + len(self.smooth) == 1 else "keep their"
        left = f"; {' and '.join(kept)} {verb} own derivative" if kept else ""
        layers = "".join(f"; at {grid}" for grid in self.grids)
        return f"{self.rule}: {counted} ReLUs{leaky} ({self.engine}){left}{layers}"

    @property
    def kept(self) -> list[str]:
        """The operations that keep their own derivative, counted in words."""
        return [
            f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
            for what, names in (("gate", self.gates), ("ELU", self.smooth))
            if names
        ]

    def _repr_html_(self) -> str:
        return str(draw("pages.coverage_page", [self]))


class Coverages(dict[str, Coverage]):
    """The Coverage of each method by name; prints one line for each.

    Examples
    --------
    >>> print(Coverages(gradient=Coverage("gradient", 3, 3, "model")))
    gradient: 3 of 3 ReLUs (model)
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.values()))

    def _repr_html_(self) -> str:
        return str(draw("pages.coverage_page", list(self.values())))


def cover(
    name: str,
    rule: Callable[..., Any],
    census: Census,
    engine: EngineName,
    grids: tuple[CellGrid, ...] = (),
) -> Coverage:
    """Return the coverage of a method with a rule for ReLUs, from the census of its model."""
    relus = len(census.sites) + len(census.others)
    # The gradient is every ReLU's own derivative, with or without a clone.
    reached = relus if rule is gradient else len(census.sites)
    leaky, gates, smooth = len(census.leaky), census.gates, census.smooth
    return Coverage(name, relus, reached, engine, leaky, gates, smooth, grids)


def find_relus(sources: Sequence[tf.Tensor], scores: tf.Tensor, marks: bool = False) -> Census:
    """Find every ReLU on a path from one of the sources to scores in the graph being traced.

    Parameters
    ----------
    sources, scores
        The ends of the path.
    marks
        Whether the rule acts on marked ops instead of AttributionReLUs.
    """
    found = _Findings()
    callers: list[Inner] = []
    influenced = find_influenced(sources)
    for op in between(sources, scores):
        node, definition = make_node(op, influenced), op.node_def
        site = None if marks else match_site(op.name)
        if site:
            found.add_site(site, node)
        else:
            found.add(op.name, node, is_marked(definition))
        if _calls_functions(definition):
            callers.append(Inner(op.name, node, definition, True))
    found.direct = tuple(found.sites)
    if callers:
        functions = scores.graph.as_graph_def().library.function
        for inner in inside(callers, {f.signature.name: f for f in functions}):
            site = None if marks else match_site(inner.name)
            if site:
                found.add_unreached(site)
            else:
                found.add(inner.name, inner.node, inner.flows and is_marked(inner.definition))
    return found.sorted()


def check_coverage(found: Census, modified: Iterable[str]) -> None:
    """Raise if a modified rule misses a ReLU, or the model has none.

    Parameters
    ----------
    found
        The census.
    modified
        The names of the methods whose rule is not the gradient.

    Raises
    ------
    NoReluError, UncoveredReluError
    """
    listed = [repr(name) for name in modified]
    names = " and ".join(listed)
    if names and not found.sites and not found.others:
        kept = found.gates + found.smooth
        raise NoReluError(
            f"Expected a model with ReLUs for {names}. Received: a model without ReLUs between its "
            f"input and the score{f' ({_some(kept)} are not rectifiers)' if kept else ''}, so the "
            "map would be the plain gradient under another name. Use methods='gradient'."
        )
    if (names and found.others) or found.hidden:
        left = found.others if names else found.hidden
        total = len(found.sites) + len(found.others)
        raise UncoveredReluError(
            f"{names or 'The gradient'} cannot reach {len(left)} of {total} ReLUs: {_some(left)}. "
            "Rules reach relu, relu6 and leaky_relu wherever they are called, and any ReLU or "
            "PReLU layer of a Sequential or Functional model. Move such a layer out of a custom "
            "layer, a function or a subclassed model; write a maximum, a where or a mask as a "
            f"keras.layers.ReLU{', or use methods=' + repr('gradient') if names else ''}."
        )


def check_passed(found: Census, passed: Collection[str], method: str) -> None:
    """Raise UncoveredReluError if the backward pass of a rule bypassed a ReLU.

    Parameters
    ----------
    found
        The census.
    passed
        The names of the ReLUs at which the rule was called.
    method
        The method's name.
    """
    left = tuple(name for name in found.direct if name not in passed)
    if left:
        raise UncoveredReluError(
            f"The backward pass of {method!r} bypassed {len(left)} of {len(found.direct)} ReLUs: "
            f"{_some(left)}. Expected gradients that follow the operations; there is a "
            "tf.custom_gradient around these ReLUs, or a later operation without a derivative. "
            "Use keras.layers.ReLU, and remove the custom gradient or that operation; or use "
            "methods='gradient'."
        )


def match_site(name: str) -> str | None:
    """Return the name of the AttributionReLU to which an op belongs, by its name, else None."""
    site = _SITE.match(name)
    return site.group() if site else None


def is_marked(definition: Any) -> bool:
    """Return whether the graph engine has replaced the gradient of this op."""
    return MARK in definition.attr and definition.attr[MARK].s == MARKED


class _Findings:
    """The findings of a census so far, in order."""

    def __init__(self) -> None:
        # For each site, the ops inside it: a ReLU with a ceiling consists of several.
        self.sites: dict[str, bool] = {}
        self.names: dict[str, list[str]] = {WRITTEN: [], GATE: [], SMOOTH: []}
        self.leaky: list[str] = []
        self.hidden: list[str] = []
        self.direct: tuple[str, ...] = ()

    def add_site(self, site: str, node: Node) -> None:
        """Count an op of an AttributionReLU.

        If it clips a hard sigmoid, the site is a gate. Half of a PReLU whose other half is
        elsewhere is not reached, since both together are one ReLU.
        """
        self.sites[site] = self.sites.get(site, False) or kind(node) == GATE
        if any(match_site(name) != site for name in other_halves(node)):
            self.names[WRITTEN].append(site)

    def add_unreached(self, site: str) -> None:
        """Count an AttributionReLU inside a function, where rules cannot be distinguished."""
        if site not in self.hidden:
            self.hidden.append(site)
            self.names[WRITTEN].append(site)

    def add(self, name: str, node: Node, reached: bool) -> None:
        """Count any other op."""
        what = kind(node)
        if node.type == "LeakyRelu":
            self.leaky.append(name)
        if what == RELU and reached:
            self.sites[name] = False
        elif what is not None:
            self.names[WRITTEN if what == RELU else what].append(name)

    def sorted(self) -> Census:
        """Return the census, sorted by kind."""
        kept = set(self.names[WRITTEN])
        sites = tuple(name for name, gate in self.sites.items() if not gate and name not in kept)
        gates = [name for name, gate in self.sites.items() if gate]
        return Census(
            sites,
            tuple(self.names[WRITTEN]),
            (*gates, *self.names[GATE]),
            tuple(self.names[SMOOTH]),
            (*self.leaky, *(name for name in sites if LEAKY_SCOPE in name)),
            tuple(self.hidden),
            tuple(name for name in self.direct if name in sites),
        )


def between(sources: Sequence[tf.Tensor], target: tf.Tensor) -> Iterator[tf.Operation]:
    """Yield the operations on gradient paths from target to sources, in the graph's order."""
    above = set()
    pending = [target.op]
    while pending:
        op = pending.pop()
        if op not in above:
            above.add(op)
            pending.extend(tensor.op for tensor in _differentiable_inputs(op))
    reached = {source.op for source in sources}
    for op in target.graph.get_operations():  # in the order of creation: inputs come first
        if op in above and any(tensor.op in reached for tensor in _differentiable_inputs(op)):
            reached.add(op)
            yield op


def _differentiable_inputs(op: tf.Operation) -> list[tf.Tensor]:
    """Return the inputs of an op that can receive a gradient."""
    if op.type in ("StopGradient", "PreventGradient"):
        return []
    return [t for t in op.inputs if not (t.dtype.is_integer or t.dtype.is_bool)]


def _calls_functions(definition: Any) -> bool:
    return any(a.HasField("func") or a.list.func for a in definition.attr.values())


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
