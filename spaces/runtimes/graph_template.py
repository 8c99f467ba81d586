"""Graphs assembled from a template: few traced layers represent those of all models of a kind.

Tracing takes seconds per layer. A search converts many models whose graphs differ only in their
number of layers, sizes and weights. So a layer of each kind is traced once, and each model's graph
is assembled from copies of them.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.spaces.models.families import Block, blocks_of, layers_of
from paretoformer.spaces.runtimes.base import optional
from paretoformer.spaces.runtimes.cached_graph import PAST, PRESENT
from paretoformer.spaces.runtimes.template_model import Units, kind_of, neurons_in

HIDDEN, MIXED, FED = "template.hidden", "template.mixed", "template.fed"
"""Values of the traced graph: the hidden states before each layer and after the last, and the
outputs of the head and neuron projections."""

Change = Callable[[torch.Tensor], torch.Tensor]
CHANGES: Mapping[int, Sequence[Change]] = {
    1: (lambda values: values, lambda values: values + 1),  # gemma's norms
    2: (lambda values: values, lambda values: values.T),
    3: (lambda values: values,),
}
"""Changes that tracing may make to a parameter of one, two or more axes."""
Make = Callable[[], Any]
"""Creates a constant of a graph, an `onnx.TensorProto`, only when it is used."""


class Marked(nn.Module):
    """A module that also returns values from inside its model's layers."""

    def __init__(self, inner: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._seen: dict[str, torch.Tensor] = {}
        blocks = blocks_of(model)
        blocks[0].layer.register_forward_pre_hook(self._keep_input, with_kwargs=True)
        for index, block in enumerate(blocks):
            block.layer.register_forward_hook(self._keep(f"{HIDDEN}.{index + 1}"))
            block.output.register_forward_hook(self._keep(f"{MIXED}.{index}"))
            block.feed_forward_output.register_forward_hook(self._keep(f"{FED}.{index}"))
        self.marks = (
            *(f"{HIDDEN}.{index}" for index in range(len(blocks) + 1)),
            *(f"{name}.{index}" for name in (MIXED, FED) for index in range(len(blocks))),
        )

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _keep_input(self, module: nn.Module, inputs: Any, named: Any) -> None:
        self._seen[f"{HIDDEN}.0"] = inputs[0] if inputs else named["hidden_states"]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.inner(*tensors)
        return (*outputs, *(self._seen[name] for name in self.marks))


@dataclass(frozen=True)
class _Source:
    """The source of a graph's constant: a parameter, and the change applied to it."""

    name: str
    change: Change


@dataclass(frozen=True)
class _Layer:
    """One layer of a template.

    nodes: in order. sizes: of the traced layer. counts: constants that contain sizes. weights:
        constants from the layer's parameters, whose names are relative to it.
    """

    index: int
    nodes: Sequence[Any]
    sizes: tuple[int, ...]
    counts: Mapping[str, np.ndarray]
    weights: Mapping[str, _Source]


class Template:
    """A traced graph of few layers, taken apart.

    Raises:
        ValueError: its parts cannot be separated as expected.
    """

    def __init__(self, proto: Any, model: nn.Module, units: Units) -> None:
        """proto: `Marked(model)`, traced; it is changed. model: from
        `template_model.few_layers`."""
        _marks_first(proto.graph)
        self._units = units
        graph = proto.graph
        if any(each.HasField("g") for node in graph.node for each in node.attribute):
            raise ValueError("the graph has branches.")
        inputs = list(map(_fresh, graph.input))
        self._inputs = [each for each in inputs if not each.name.startswith(PAST)]
        self._past = [each for each in inputs if each.name.startswith(f"{PAST}.0.")]
        every = map(_fresh, graph.output)
        outputs = [each for each in every if not each.name.startswith("template.")]
        self._outputs = [each for each in outputs if not each.name.startswith(PRESENT)]
        self._present = [each for each in outputs if each.name.startswith(f"{PRESENT}.0.")]
        arrays = {each.name: _array(each) for each in graph.initializer}
        sources = _sources(arrays, model)
        flow = _Flow(map(_fresh, graph.node))
        self._layers = [
            self._layer(index, block, flow, arrays, _inside(sources, model, index))
            for index, block in enumerate(blocks_of(model))
        ]
        *kinds, _ = map(kind_of, blocks_of(model))
        self._kinds = dict(zip(kinds, self._layers, strict=False))
        self._after = f"{HIDDEN}.{len(self._layers)}"
        inside = {id(node) for layer in self._layers for node in layer.nodes}
        wanted = flow.above({each.name for each in self._outputs}, {self._after})
        wanted |= flow.above({f"{HIDDEN}.0"}, set())
        for layer in self._layers:
            wanted |= flow.above(_read(layer.nodes), {f"{HIDDEN}.{layer.index}"})
        self._rest = [node for node in flow.nodes if id(node) in wanted - inside]
        self._check_parts()
        read, own = _read(self._rest), {n for each in self._layers for n in _own(each)}
        read |= {name for layer in self._layers for name in _read(layer.nodes)} - own
        if own & _read(self._rest):
            raise ValueError("a weight of a layer is read outside of it.")
        self._weights = {name: source for name, source in sources.items() if name in read}
        fixed = read - sources.keys()
        self._constants = [_fresh(each) for each in graph.initializer if each.name in fixed]
        for fields in (graph.initializer, graph.node, graph.value_info, graph.input, graph.output):
            del fields[:]
        self._proto = _fresh(proto)

    def _layer(
        self,
        index: int,
        block: Block,
        flow: _Flow,
        arrays: Mapping[str, np.ndarray],
        weights: Mapping[str, _Source],
    ) -> _Layer:
        sizes = self._units.sizes(self._units.count(block), neurons_in(block))
        counts = {name: each for name, each in arrays.items() if _has(each, sizes)}
        before, after = f"{HIDDEN}.{index}", f"{HIDDEN}.{index + 1}"
        past = {_at(each.name, index) for each in self._past}
        present = {_at(each.name, index) for each in self._present}
        ends = {after, f"{MIXED}.{index}", f"{FED}.{index}", *present}
        inside = flow.above(ends, {before}) & flow.below({before, *past, *counts, *weights}, after)
        nodes = [node for node in flow.nodes if id(node) in inside]
        read = _read(nodes)
        return _Layer(
            index,
            nodes,
            sizes,
            {name: each for name, each in counts.items() if name in read},
            {name: each for name, each in weights.items() if name in read},
        )

    def _check_parts(self) -> None:
        """Raises ValueError where other parts read more of a layer than its hidden states."""
        for layer in self._layers:
            made = _made(layer.nodes) - {f"{HIDDEN}.{layer.index + 1}"}
            others = [node for each in self._layers if each is not layer for node in each.nodes]
            if leaks := sorted(made & _read([*self._rest, *others])):
                raise ValueError(f"layer {layer.index} is read elsewhere: {leaks}.")

    def graph_of(self, model: nn.Module) -> Any:
        """The graph of a model of the same kind, an `onnx.ModelProto`; equal models, equal bytes.

        Raises:
            ValueError: the model is of another kind.
        """
        proto, blocks = _fresh(self._proto), blocks_of(model)
        graph = proto.graph
        graph.input.extend(self._inputs)
        graph.output.extend(self._outputs)
        nodes, hidden = list[Any](), f"{HIDDEN}.0"
        constants: dict[str, Make] = {}
        constants |= {each.name: partial(_fresh, each) for each in self._constants}
        constants |= _weights(self._weights, model, "")
        for index, block in enumerate(blocks):
            layer = self._layers[-1] if block is blocks[-1] else self._kinds[kind_of(block)]
            hidden = self._append(graph, nodes, constants, layer, block, index, hidden)
        names = {self._after: hidden}
        nodes.extend(_copy(node, names, names, {}) for node in self._rest)
        graph.node.extend(_in_order(nodes, {each.name for each in graph.output}))
        read = _read(graph.node)
        graph.initializer.extend(make() for name, make in constants.items() if name in read)
        read |= {each.name for each in graph.output}
        known = {*constants, *(each.name for each in graph.input)}
        if unknown := read - _made(graph.node) - known:
            raise ValueError(f"the model is of another kind: it lacks {sorted(unknown)}.")
        return proto

    def _append(
        self,
        graph: Any,
        nodes: list[Any],
        constants: dict[str, Make],
        layer: _Layer,
        block: Block,
        index: int,
        hidden: str,
    ) -> str:
        """Add a layer: its inputs and outputs to `graph`, the rest to `nodes` and `constants`.

        hidden: name of the hidden states before it. Returns that of those after it.
        """
        count, neurons = self._units.count(block), neurons_in(block)
        actual = self._units.sizes(count, neurons)
        sizes = dict(zip(layer.sizes, actual, strict=True))
        own, behind = f"layers.{index}.", f"{HIDDEN}.{index + 1}"
        writes = {name: own + name for name in _made(layer.nodes)}
        writes |= {f"{HIDDEN}.{layer.index + 1}": behind}
        writes |= {_at(each.name, layer.index): _at(each.name, index) for each in self._present}
        reads = writes | {name: own + name for name in _own(layer)}
        reads |= {f"{HIDDEN}.{layer.index}": hidden}
        reads |= {_at(each.name, layer.index): _at(each.name, index) for each in self._past}
        if not count:
            reads[f"{MIXED}.{layer.index}"] = own + "mixed"
            constants[own + "mixed"] = partial(_constant, own + "mixed", block.output)
        if not neurons:
            reads[f"{FED}.{layer.index}"] = own + "fed"
            constants[own + "fed"] = partial(_constant, own + "fed", block.feed_forward_output)
        for name, each in layer.counts.items():
            values = np.array([sizes.get(n, n) for n in each.flat]).reshape(each.shape)
            constants[own + name] = partial(_tensor, own + name, values)
        constants |= _weights(layer.weights, block.layer, own)
        copies = [_copy(node, reads, writes, sizes) for node in layer.nodes]
        if self._present and not count:
            gone = {_at(each.name, index) for each in self._present}
            copies = [node for node in copies if gone.isdisjoint(node.output)]
            copies += _counting(self._past, self._present, index)
        nodes.extend(copies)
        shapes = dict(zip(self._layers[0].sizes, actual, strict=True))
        graph.input.extend(_value(each, index, shapes, count) for each in self._past)
        graph.output.extend(_value(each, index, shapes, count) for each in self._present)
        return behind


def _marks_first(graph: Any) -> None:
    """Where a marked value is also a model output, make the output a copy of the mark."""
    for node in graph.node:
        if node.op_type == "Identity" and node.output[0].startswith("template."):
            output, mark = node.input[0], node.output[0]
            swapped = {output: mark, mark: output}
            for each in graph.node:
                each.input[:] = [swapped.get(name, name) for name in each.input]
                each.output[:] = [swapped.get(name, name) for name in each.output]


class _Flow:
    """Dependencies between the nodes of a graph."""

    def __init__(self, nodes: Iterable[Any]) -> None:
        self.nodes = list(nodes)
        self._maker = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def above(self, names: Iterable[str], stop: set[str]) -> set[int]:
        """Ids of the nodes that these values depend on, except through `stop`."""
        found, left = set[int](), list(names)
        while left:
            name = left.pop()
            node = None if name in stop else self._maker.get(name)
            if node is not None and id(node) not in found:
                found.add(id(node))
                left.extend(node.input)
        return found

    def below(self, names: Iterable[str], stop: str) -> set[int]:
        """Ids of the nodes that depend on these values, except through `stop`. A graph input's
        shape is no dependency: all inputs share the numbers of rows and tokens."""
        found, left = set[int](), list(names)
        while left:
            name = left.pop()
            for node in self._readers.get(name, ()):
                counts = node.op_type == "Shape" and name not in self._maker
                if id(node) not in found and not counts:
                    found.add(id(node))
                    left.extend(each for each in node.output if each != stop)
        return found


def _sources(arrays: Mapping[str, np.ndarray], model: nn.Module) -> dict[str, _Source]:
    """Constant -> its source parameter in the model, identified by its random values."""
    known = {
        _signature(change(parameter.detach()).numpy()): _Source(name, change)
        for name, parameter in model.named_parameters()
        for change in CHANGES[min(parameter.ndim, 3)]
    }
    found = ((name, known.get(_signature(each))) for name, each in arrays.items())
    return {name: source for name, source in found if source is not None}


def _signature(values: np.ndarray) -> object:
    return values.shape, *values.flat[:8].tolist()


def _inside(sources: Mapping[str, _Source], model: nn.Module, index: int) -> dict[str, _Source]:
    """The sources in one layer, with names relative to it."""
    layer = layers_of(model)[index]
    prefix = next(name for name, each in model.named_modules() if each is layer) + "."
    return {
        name: _Source(source.name.removeprefix(prefix), source.change)
        for name, source in sources.items()
        if source.name.startswith(prefix)
    }


def _own(layer: _Layer) -> Iterator[str]:
    """The constants that each copy of a layer has separately."""
    yield from layer.counts
    yield from layer.weights


def _has(array: np.ndarray, sizes: Sequence[int]) -> bool:
    return array.dtype.kind == "i" and bool(np.isin(array, sizes).any())


def _read(nodes: Iterable[Any]) -> set[str]:
    """The values that nodes read; "" is an omitted input."""
    return {name for node in nodes for name in node.input if name}


def _made(nodes: Iterable[Any]) -> set[str]:
    return {name for node in nodes for name in node.output if name}


def _at(name: str, index: int) -> str:
    """A name such as `present.0.key`, in another layer."""
    prefix, _, part = name.split(".")
    return f"{prefix}.{index}.{part}"


def _copy(
    node: Any, reads: Mapping[str, str], writes: Mapping[str, str], sizes: Mapping[int, int]
) -> Any:
    """A copy of a node with other value names, and other sizes in its attributes."""
    new = _fresh(node)
    new.input[:] = [reads.get(name, name) for name in node.input]
    new.output[:] = [writes.get(name, name) for name in node.output]
    new.name = f"{new.op_type}.{new.output[0]}"
    for each in new.attribute:
        if each.type == each.INT:
            each.i = sizes.get(each.i, each.i)
        each.ints[:] = [sizes.get(number, number) for number in each.ints]
    return new


def _counting(past: Sequence[Any], present: Sequence[Any], index: int) -> Iterator[Any]:
    """Nodes that append a zero per token to the cache of a layer without heads."""
    helper = optional("onnx.helper", "onnx")
    own = f"layers.{index}."
    one = helper.make_tensor("value", helper.TensorProto.INT64, (1,), (1,))
    yield helper.make_node("Constant", [], [f"{own}one"], value=one)
    yield helper.make_node("Shape", ["input_ids"], [f"{own}rows"], start=0, end=1)
    yield helper.make_node("Shape", ["input_ids"], [f"{own}tokens"], start=1, end=2)
    parts = [f"{own}rows", f"{own}one", f"{own}tokens", f"{own}one"]
    yield helper.make_node("Concat", parts, [f"{own}shape"], axis=0)
    yield helper.make_node("ConstantOfShape", [f"{own}shape"], [f"{own}zeros"])
    for before, after in zip(past, present, strict=True):
        names = [_at(before.name, index), f"{own}zeros"]
        yield helper.make_node("Concat", names, [_at(after.name, index)], axis=2)


def _value(value: Any, index: int, sizes: Mapping[int, int], count: int) -> Any:
    """An input or output of the traced layer 0, for another layer with other sizes.

    count: its groups of heads; without any, the cache has one of width 1.
    """
    new = _fresh(value)
    new.name = _at(value.name, index)
    _, heads, _, width = new.type.tensor_type.shape.dim
    heads.dim_value = sizes[heads.dim_value] if count else 1
    if not count:
        width.dim_value = 1
    return new


def _array(tensor: Any) -> np.ndarray:
    found: np.ndarray = optional("onnx.numpy_helper", "onnx").to_array(tensor)
    return found


def _tensor(name: str, array: np.ndarray) -> Any:
    return optional("onnx.numpy_helper", "onnx").from_array(np.ascontiguousarray(array), name)


def _weights(sources: Mapping[str, _Source], module: nn.Module, prefix: str) -> dict[str, Make]:
    """Makers of the constants from a module's parameters, where it has them."""
    parameters = dict(module.named_parameters())
    return {
        prefix + name: partial(_weight, prefix + name, source.change, parameters[source.name])
        for name, source in sources.items()
        if source.name in parameters
    }


def _weight(name: str, change: Change, parameter: torch.Tensor) -> Any:
    return _tensor(name, change(parameter.detach()).cpu().float().numpy())


def _fresh(message: Any) -> Any:
    """A standalone copy: a part of a protobuf message would keep the whole message in memory."""
    new = type(message)()
    new.CopyFrom(message)
    return new


def _constant(name: str, output: nn.Module) -> Any:
    """The constant output of a block without heads or neurons."""
    bias, width = getattr(output, "bias", None), int(getattr(output, "width", 0))
    values = torch.zeros(width) if bias is None else bias.detach().cpu().float()
    return _tensor(name, values.numpy())


def _in_order(nodes: Sequence[Any], outputs: set[str]) -> Iterator[Any]:
    """The nodes that the outputs depend on, in topological order."""
    wanted = _Flow(nodes).above(outputs, set())
    nodes = [node for node in nodes if id(node) in wanted]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    order = graphlib.TopologicalSorter(
        {index: [maker[n] for n in node.input if n in maker] for index, node in enumerate(nodes)}
    )
    return (nodes[index] for index in order.static_order())
