"""An ONNX graph before anything runs it: read, cut at the logits, and its names made harmless."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.shape_inference

from ...errors import MissingData, ModelError, ParameterError, unknown

LARGEST = 2**31 - 1  # bytes of one protobuf message: its length is a signed 32-bit number
FLOATS = {1: "float32", 10: "float16", 11: "float64"}  # TensorProto.DataType
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
SHAPING = ("Squeeze", "Reshape", "Flatten")
INTEGERS = {2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64"}


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its element type as TensorProto has it, and its shape; None: any length."""

    name: str
    kind: int
    shape: tuple[int | None, ...] | None


def read(path: Path) -> onnx.ModelProto:
    """The model in a file, with its external data. Raises `MissingData`, `ModelError`."""
    if not path.is_file():
        raise MissingData(f"There is no ONNX file {path}.")
    try:
        model = onnx.load(path)
    except (FileNotFoundError, onnx.checker.ValidationError) as error:
        raise MissingData(
            f"{path} keeps its weights in another file, which is not beside it or not as it was: {line(error)}"
        ) from None
    except Exception as error:  # google.protobuf's DecodeError, which has moved between its versions
        raise ModelError(f"{path} is no ONNX file, or is damaged: {line(error)}") from None
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is no ONNX file: it holds no graph with an opset.")
    if model.ByteSize() > LARGEST:
        raise ModelError(f"{path} holds more than 2 GB, which is more than one ONNX message may.")
    newest = onnx.defs.onnx_opset_version()
    if opset(model) > newest:
        raise ModelError(
            f"{path} has opset {opset(model)}, and the installed onnx {onnx.__version__} knows opsets up to {newest}: "
            "update onnx and onnxruntime, or export with an older opset."
        )
    return model


def line(error: BaseException) -> str:
    """The first line of an error, without the codes that onnxruntime begins with, ended by a full stop."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first)[:300].rstrip(".") + "."


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses; 0: it uses none of them."""
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def port(value: onnx.ValueInfoProto) -> Port:
    """What is declared of an input or output."""
    held = value.type.tensor_type
    known = value.type.HasField("tensor_type") and held.HasField("shape")
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in held.shape.dim)
    return Port(value.name, held.elem_type, shape if known else None)


def entry(model: onnx.ModelProto, path: Path) -> Port:
    """The one input that is no weight. Raises `ModelError` where there are none or several."""
    held = {tensor.name for tensor in model.graph.initializer}
    found = [port(value) for value in model.graph.input if value.name not in held]
    if len(found) != 1:
        names = ", ".join(f"{p.name!r}" for p in found) or "none"
        raise ModelError(f"{path} must have one input, the images. It has {len(found)}: {names}.")
    if found[0].kind not in FLOATS | INTEGERS:
        raise ModelError(f"The input {found[0].name!r} of {path} must be a tensor of numbers.")
    return found[0]


def ended(model: onnx.ModelProto, name: str | None, path: Path) -> tuple[onnx.ModelProto, str]:
    """The model with one output only, its logits, and what was left out at its end in words ("" for nothing).

    name:  of the value to take, an output or one within; None: the output called like logits, else the only one with a
           row of floats for each image.

    A softmax or sigmoid that ends the graph is left out, and so is scikit-learn's ZipMap: none of them changes which
    class is the largest, and gradients vanish in saturated probabilities. Raises `ParameterError`, `ModelError`.
    """
    made = {out: node for node in model.graph.node for out in node.output}
    values = {v.name: v for v in _inferred(model)}
    name = name or _chosen(model, path)
    if name not in made:
        raise unknown(f"output in {path}", name, [v.name for v in model.graph.output] or list(made))
    cut = ""
    node = made[name]
    if node.op_type == "ZipMap":
        name, cut = node.input[0], "ZipMap"
        node = made.get(name, node)
    name, node = _squashing(name, made, values)
    if node.op_type in ("Softmax", "Sigmoid") and node.domain in ("", "ai.onnx") and node.input[0] in made:
        shape = port(values[name]).shape if name in values else None
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if opset(model) >= 13 else 1)
        if node.op_type == "Sigmoid" or (shape is not None and len(shape) == 2 and axis in (1, -1)):
            name, cut = node.input[0], node.op_type
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.output[:]
    found.graph.output.append(values.get(name, onnx.helper.make_empty_tensor_value_info(name)))
    _prune(found.graph, name)
    return found, cut


def _squashing(
    name: str, made: Mapping[str, onnx.NodeProto], values: Mapping[str, onnx.ValueInfoProto]
) -> tuple[str, onnx.NodeProto]:
    """The softmax or sigmoid that a value comes from, but for changes of its type; else the value itself, and its node.

    Rounded to few levels, the largest of several probabilities may be a tie: then the rounding is part of the answer. One
    probability an image may also have another shape, (N,) instead of (N, 1).
    """
    at, passed = name, set[str]()
    while at in made and (made[at].op_type in ("Identity", *ROUNDING, *SHAPING) or _to_floats(made[at])):
        passed.add(made[at].op_type)
        at = made[at].input[0]
    shape = port(values[at]).shape if at in values else None
    one = shape is not None and len(shape) == 2 and shape[1] == 1
    node = made.get(at, made[name])
    right = node.op_type == "Sigmoid" and (one or not passed & set(SHAPING))
    right |= node.op_type == "Softmax" and not passed & {*ROUNDING, *SHAPING}
    return (at, node) if right else (name, made[name])


def one_probability(model: onnx.ModelProto) -> bool:
    """Whether the only output is a sigmoid's that cannot be left out, since what it takes is no number of floats."""
    made = {out: node for node in model.graph.node for out in node.output}
    at = model.graph.output[0].name
    while at in made and made[at].op_type in ("Identity", *ROUNDING, *SHAPING):
        at = made[at].input[0]
    return at in made and made[at].op_type == "QLinearSigmoid"


def _to_floats(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i in FLOATS for a in node.attribute)


def _inferred(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """The values whose shapes are declared or follow."""
    yield from model.graph.output
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # operators of other domains
        graph = model.graph
    yield from graph.value_info
    yield from graph.output


def _chosen(model: onnx.ModelProto, path: Path) -> str:
    found = [port(value) for value in model.graph.output]
    if len(found) == 1:
        return found[0].name
    logits = [p for p in found if "logit" in p.name.lower()]
    mapped = {node.output[0] for node in model.graph.node if node.op_type == "ZipMap"}
    rows = [p for p in found if p.name in mapped or (p.kind in FLOATS and p.shape is not None and len(p.shape) == 2)]
    for some in (logits, rows):
        if len(some) == 1:
            return some[0].name
    names = ", ".join(p.name for p in found)
    raise ParameterError(f"{path} has several outputs. Name the logits, as output=NAME: one of {names}.")


def _prune(graph: onnx.GraphProto, name: str) -> None:
    """Leave out nodes that the value does not need."""
    needed, kept = {name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(used(node))
    kept = kept[::-1]
    del graph.node[:]
    graph.node.extend(kept)


def used(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads, also those that graphs within it read."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from used(inner)


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with nodes called by number and operator.

    torch.fx writes Python from the names of modules without escaping them: a name in the file could hold code.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for at, node in enumerate(found.graph.node):
        node.name = f"n{at}_{node.op_type}" if node.op_type.isidentifier() else f"n{at}"
    return found


def classes_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the classes where the file gives them.

    In its metadata, as a list or a mapping from indices, in JSON or Python; or as labels of a classifier of scikit-learn.
    """
    held = {pair.key.lower(): pair.value for pair in model.metadata_props}
    for key in ("names", "classes", "class_names", "labels", "id2label"):
        names = _names(held.get(key, ""))
        if names:
            return names
    for attribute in (one for node in model.graph.node for one in node.attribute):
        if attribute.name in ("classlabels_strings", "classlabels_ints", "classlabels_int64s"):
            labels = [
                one.decode() if isinstance(one, bytes) else one for one in onnx.helper.get_attribute_value(attribute)
            ]
            if labels and labels != list(range(len(labels))):
                return tuple(map(str, labels))
    return ()


def _names(words: str) -> tuple[str, ...]:
    found: Any = None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(words)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(found, dict):
        try:
            order = sorted(found, key=int)
        except (TypeError, ValueError):
            return ()
        found = [found[key] for key in order] if [int(k) for k in order] == list(range(len(order))) else None
    if found is None and "," in words and not words.lstrip().startswith(("[", "{")):
        found = [part.strip() for part in words.split(",")]
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def operators(nodes: Iterable[onnx.NodeProto]) -> str:
    """The kinds of some nodes in words."""
    return ", ".join(sorted({f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in nodes}))
