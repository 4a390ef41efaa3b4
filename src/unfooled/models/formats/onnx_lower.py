"""An ONNX graph written with operators of opset 17 or less, which are those that onnx2torch knows.

What torch exports today has opset 18 or more. Most operators have only learnt further types of numbers since; some take
as inputs what were attributes, and some are short for others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .onnx_graph import opset

Array = NDArray[Any]

OPSET = 17
DEEP = 5  # definitions within definitions
UNKNOWN = ("CastLike", "MeanVarianceNormalization", "Mish", "ThresholdedRelu", "Shrink")  # to onnx2torch
LATER: dict[str, dict[str, Any]] = {  # attributes that operators have learnt, at the values at which they change nothing
    "AveragePool": {"dilations": 1}, "Cast": {"saturate": 1, "round_mode": b"up"}, "Reshape": {"allowzero": 0},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}, "ScatterND": {"reduction": b"none"},
    "BatchNormalization": {"training_mode": 0},
}  # fmt: skip
STANDARD = ("", "ai.onnx")


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without constant nodes and identities, and in opset 17 if it had a later one.

    What has no older form stays as it is: whoever converts the graph says that it does not know the operator.
    """
    found = _inlined(model)
    graph = found.graph
    _constants(graph)
    _identities(graph)
    if opset(found) > OPSET:
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.domain in STANDARD:
                _older(node, held)
        for imported in found.opset_import:
            if imported.domain in STANDARD:
                imported.version = OPSET
    for node in graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
    try:
        return onnx.shape_inference.infer_shapes(found, data_prop=True)  # converters ask for lengths of layers
    except Exception:  # operators of other domains
        return found


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the bodies of its own functions, and of operators that opset 17 has not, in place of calls."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    if found.functions:
        found = onnx.inliner.inline_local_functions(found)
    for _ in range(DEEP):
        young = sorted({n.op_type for n in found.graph.node if n.domain in STANDARD and _young(n, opset(found))})
        if not young:
            break
        try:
            found = onnx.inliner.inline_selected_functions(
                found, [("", name) for name in young], inline_schema_functions=True
            )
        except TypeError:  # an onnx that inlines a model's own functions only
            break
    return found


def _young(node: onnx.NodeProto, version: int) -> bool:
    """Whether opset 17 has no such operator, or onnx2torch has not, and its definition is written with others."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    if not (schema.has_function or schema.has_context_dependent_function):
        return False
    try:
        onnx.defs.get_schema(node.op_type, OPSET, "")
    except onnx.defs.SchemaError:
        return True
    return node.op_type in UNKNOWN


def _constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers."""
    kept = []
    for node in graph.node:
        array = _array(node) if node.op_type == "Constant" and node.domain in STANDARD else None
        if array is None:
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    _replace(graph, kept)


def _array(node: onnx.NodeProto) -> Array | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            found: Array = numpy_helper.to_array(attribute.t)
            return found
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            kind = "float32" if "float" in attribute.name else "int64"
            return np.array(helper.get_attribute_value(attribute), dtype=kind)
    return None


def _identities(graph: onnx.GraphProto) -> None:
    """Whoever reads an identity's output reads its input; one that ends the graph stays."""
    ends, same, kept = {v.name for v in graph.output}, dict[str, str](), []
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = same.get(name, name)
        if node.op_type == "Identity" and node.domain in STANDARD and node.output[0] not in ends:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    _replace(graph, kept)


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _older(node: onnx.NodeProto, held: dict[str, Array]) -> None:
    """Write a node as opset 17 has it, where that means the same."""
    rewrite: Callable[[onnx.NodeProto, dict[str, Array]], None] | None = None
    if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
        rewrite = _reduce
    elif node.op_type == "Split":
        rewrite = _split
    elif node.op_type == "Reshape":
        rewrite = _reshape
    if rewrite is not None:
        rewrite(node, held)
    for name, harmless in LATER.get(node.op_type, {}).items():
        for attribute in [a for a in node.attribute if a.name == name]:
            value = helper.get_attribute_value(attribute)
            if all(v == harmless for v in value) if isinstance(value, list) else value == harmless:
                node.attribute.remove(attribute)


def _reduce(node: onnx.NodeProto, held: dict[str, Array]) -> None:
    """Axes were an attribute before opset 18."""
    if len(node.input) < 2:
        return
    axes = held.get(node.input[1]) if node.input[1] else None
    if node.input[1] and axes is None:
        return
    noop = [a for a in node.attribute if a.name == "noop_with_empty_axes"]
    if any(a.i for a in noop) and (axes is None or not axes.size):
        return  # an identity, which no older reduction is
    del node.input[1:]
    for attribute in noop:
        node.attribute.remove(attribute)
    if axes is not None and axes.size:
        node.attribute.append(helper.make_attribute("axes", [int(a) for a in axes.ravel()]))


def _split(node: onnx.NodeProto, held: dict[str, Array]) -> None:
    """The number of parts is that of the outputs; what is left of an uneven split, the check against onnxruntime sees."""
    for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
        node.attribute.remove(attribute)


def _reshape(node: onnx.NodeProto, held: dict[str, Array]) -> None:
    """A zero means an empty dimension or "as before": the same to a shape without zeros."""
    shape = held.get(node.input[1])
    if shape is not None and not (shape == 0).any():
        for attribute in [a for a in node.attribute if a.name == "allowzero"]:
            node.attribute.remove(attribute)
