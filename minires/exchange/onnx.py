"""Write a network as ONNX, and read back the weights of a network that was written here.

Images are (N, H, W, C) at the border of the graph, as everywhere in minires; a transposition makes
them (N, C, H, W), which ONNX's operators expect. The graph computes what the network does in
evaluation mode. ONNX is optional; without it, importing this module says how to install it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.layers.alexnet import AvgPool, Dropout, Flatten, LocalResponseNorm, Tanh
from minires.layers.base import Array, Layer, Sequential
from minires.layers.core import BatchNorm, Conv2d, GlobalAvgPool, Identity, Linear, MaxPool, ReLU
from minires.layers.fused import BatchNormReLU
from minires.nets.fold import FOLDED, not_exported
from minires.nets.network import Network
from minires.nets.resnet import PlainBlock, ResidualBlock, ZeroPadShortcut
from minires.ops.geometry import pair
from minires.text import shown

try:
    import onnx
    from onnx import helper, numpy_helper
except Exception as e:  # a broken installation raises OSError and others
    if importlib.util.find_spec("onnx") is None:
        reason = 'ONNX is not installed; it is optional: pip install -e ".[onnx]"'
    else:
        words = " ".join(str(e).split())
        reason = f"ONNX cannot be imported ({type(e).__name__}: {words}); install it again"
    raise InputError(reason) from e

OPSET, IR_VERSION = 21, 10  # read by every onnxruntime since 1.18
LOWEST_OPSET = 13  # of the operators in the form that is written here
INPUT, OUTPUT = "images", "logits"
METADATA = "minires"  # the key of our metadata in a model
TOLERANCE = 1e-5  # of the largest logit, in float32


class Graph:
    """Nodes and arrays of a graph that is being written.

    Attributes
    ----------
    channels : dict of str to int
        Channels of every value: those of its first input, unless a writer says otherwise.
    """

    def __init__(self, channels: int) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, Array] = {}
        self.channels = {INPUT: channels}

    def array(self, name: str, value: Any) -> str:
        """Add an array of constants; returns its name."""
        self.arrays[name] = np.ascontiguousarray(value)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator with one output; returns the name of the output."""
        output = f"{name}:{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        self.channels[output] = self.channels[inputs[0]]
        return output


Write = Callable[[Graph, Any, str, str], str]
WRITERS: dict[type[Layer], Write] = {}  # layer class -> function that adds its operators


def register(layer_class: type[Layer], write: Write) -> None:
    """Register how the layers of a class, and of its subclasses, are written.

    Parameters
    ----------
    layer_class : class
        A later call for the same class replaces an earlier one.
    write : callable
        `write(graph, layer, name, x)` adds the operators of a layer with that dotted name, whose
        input is the value named x, (N, C, H, W) or (N, C), and returns the name of its output.

    Raises
    ------
    InputError
        If `write` is not a function or `layer_class` is not a subclass of `Layer`.
    """
    a_class = isinstance(layer_class, type) and issubclass(layer_class, Layer)
    if not a_class or layer_class is Layer:
        raise InputError(f"expected a class derived from Layer, got {layer_class!r}")
    if not callable(write):
        raise InputError(f"{layer_class.__name__}: write must be a function, got {write!r}")
    WRITERS[layer_class] = write


def write_layer(graph: Graph, layer: Layer, name: str, x: str) -> str:
    """Add the operators of a layer; returns the name of its output.

    Raises
    ------
    InputError
        If neither its class nor one of its base classes is registered.
    """
    for known in type(layer).__mro__:
        if known in WRITERS:
            return WRITERS[known](graph, layer, name, x)
    kind = type(layer).__name__
    raise InputError(
        f"no ONNX operators are known for the layer {kind}; call "
        f"exchange.onnx.register({kind}, write) with write(graph, layer, name, x) -> output"
    )


# -------------------------------------------------------------------------------- whole networks


def to_bytes(net: Network, metadata: Mapping[str, Any] | None = None, opset: int = OPSET) -> bytes:
    """The network as an ONNX model, checked by `onnx.checker`.

    Parameters
    ----------
    net : Network
    metadata : dict, optional
        JSON values that are stored in the model.
    opset : int
        Version of the operators, from 13 to the newest that the installed onnx knows.

    Raises
    ------
    InputError
        If the opset is unknown, or a layer is.
    """
    _check_opset(opset)
    H, W, C = net.facts.input_shape
    graph = Graph(C)
    x = graph.node("Transpose", [INPUT], "nchw", perm=[0, 3, 1, 2])
    y = write_layer(graph, net, "", x)
    graph.nodes.append(helper.make_node("Identity", [y], [OUTPUT], OUTPUT))
    dtype = helper.np_dtype_to_tensor_dtype(next(iter(net.parameters().values())).dtype)
    images = helper.make_tensor_value_info(INPUT, dtype, ["N", H, W, C])
    logits = helper.make_tensor_value_info(OUTPUT, dtype, ["N", net.facts.classes])
    arrays = [numpy_helper.from_array(a, name) for name, a in graph.arrays.items()]
    named = helper.make_graph(graph.nodes, net.facts.name, [images], [logits], arrays)
    opsets = [helper.make_opsetid("", opset)]
    ir_version = max(IR_VERSION, helper.find_min_ir_version_for(opsets))
    model = helper.make_model(
        named, opset_imports=opsets, ir_version=ir_version, producer_name="minires"
    )
    told = {"net": net.facts.name, **(metadata or {})}
    helper.set_model_props(model, {METADATA: json.dumps(told)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if type(opset) is not int or not LOWEST_OPSET <= opset <= newest:
        raise InputError(
            f"the opset must be from {LOWEST_OPSET} to {newest}, which the installed onnx "
            f"{onnx.__version__} knows, got {shown(opset, 40)}; {OPSET} is a safe choice"
        )


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Weights and metadata of a model that `to_bytes` made; the weights come back bit for bit.

    Nothing but the file itself is opened: arrays in other files are refused.

    Returns
    -------
    state : dict of str to ndarray
        Under our names, in our layout.
    metadata : dict

    Raises
    ------
    InputError
        If another program wrote the model, or its opset is unknown.
    """
    model = onnx.load_model_from_string(path.read_bytes())
    for used in model.opset_import:
        if used.domain:
            raise InputError(
                f"{shown(path)} uses operators of {shown(used.domain, 60)}, which minires does "
                "not know; give ONNX that minires wrote"
            )
        newest = onnx.defs.onnx_opset_version()
        if not LOWEST_OPSET <= used.version <= newest:
            raise InputError(
                f"{shown(path)} has opset {used.version}, expected one from {LOWEST_OPSET} to "
                f"{newest}, which the installed onnx {onnx.__version__} knows; install a newer "
                "onnx, or write the file again"
            )
    metadata = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA)
    if metadata is None:
        raise InputError(
            f"{shown(path)} is ONNX of another program; minires reads what it wrote itself: give "
            "the weights as safetensors, or as PyTorch's .pth"
        )
    state = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(f"{shown(path)} keeps arrays in other files; write it as one file")
        if CONSTANT not in tensor.name:
            a = numpy_helper.to_array(tensor)
            state[tensor.name] = a.transpose(2, 3, 1, 0) if a.ndim == 4 else a
    return state, json.loads(metadata)


def check_in_onnxruntime(net: Network, content: bytes, images: int = 2, seed: int = 0) -> float:
    """Run a model in onnxruntime, and compare its logits with ours.

    Parameters
    ----------
    net : Network
        The network that was written.
    content : bytes
        The model.
    images, seed : int
        The images are drawn from a normal distribution.

    Returns
    -------
    difference : float
        The largest one, divided by the largest logit.

    Raises
    ------
    InputError
        If the difference is above 1e-5, or onnxruntime is not installed.
    """
    forward = in_onnxruntime(content)
    dtype = next(iter(net.parameters().values())).dtype
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, *net.facts.input_shape)).astype(dtype)
    ours = net.forward(x)
    difference = float(np.abs(forward(x) - ours).max() / np.abs(ours).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"onnxruntime {version('onnxruntime')} differs from {net.title} by {difference:.1e} "
            f"of the largest logit, expected at most {TOLERANCE}; nothing was written"
        )
    return difference


def in_onnxruntime(content: bytes, threads: int = 0) -> Callable[[Array], Array]:
    """Load a model into onnxruntime; return its forward pass.

    Parameters
    ----------
    content : bytes
        The model.
    threads : int
        0: onnxruntime chooses.

    Returns
    -------
    forward : callable
        x (N, H, W, C) -> logits (N, classes)

    Raises
    ------
    InputError
        If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise InputError('onnxruntime is missing; install it: pip install -e ".[onnx]"') from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    return lambda x: session.run([OUTPUT], {INPUT: x})[0]


# -------------------------------------------------------------------------------------- the layers

CONSTANT = ":"  # in the names of arrays that are not weights


def _sides(pad: Any) -> list[int]:
    """Border of a window: rows and columns in front, rows and columns behind."""
    return [*pair(pad), *pair(pad)]


def _conv(graph: Graph, layer: Conv2d, name: str, x: str) -> str:
    w = layer.params["w"]
    inputs = [x, graph.array(f"{name}.w", w.transpose(3, 2, 0, 1))]
    if "b" in layer.params:
        inputs.append(graph.array(f"{name}.b", layer.params["b"]))
    window = {"kernel_shape": w.shape[:2], "strides": pair(layer.stride)}
    y = graph.node("Conv", inputs, name, pads=_sides(layer.pad), group=layer.groups, **window)
    graph.channels[y] = w.shape[3]
    return y


def _norm(graph: Graph, layer: BatchNorm, name: str, x: str) -> str:
    arrays = layer.params | layer.buffers  # gamma, beta, mean, variance: ONNX's order
    inputs = [graph.array(f"{name}.{key}", a) for key, a in arrays.items()]
    return graph.node("BatchNormalization", [x, *inputs], name, epsilon=layer.eps)


def _linear(graph: Graph, layer: Linear, name: str, x: str) -> str:
    inputs = [graph.array(f"{name}.{key}", a) for key, a in layer.params.items()]
    return graph.node("Gemm", [x, *inputs], name)


def _max_pool(graph: Graph, layer: MaxPool, name: str, x: str) -> str:
    shape = {"kernel_shape": pair(layer.size), "strides": pair(layer.stride)}
    return graph.node("MaxPool", [x], name, pads=_sides(layer.pad), **shape)


def _avg_pool(graph: Graph, layer: AvgPool, name: str, x: str) -> str:
    shape = {"kernel_shape": pair(layer.size), "strides": pair(layer.stride)}
    return graph.node(
        "AveragePool", [x], name, pads=_sides(layer.pad), count_include_pad=0, **shape
    )


def _response_norm(graph: Graph, layer: LocalResponseNorm, name: str, x: str) -> str:
    """ONNX divides alpha by the size of the window."""
    constants = {"alpha": layer.alpha * layer.n, "beta": layer.beta, "bias": layer.k}
    return graph.node("LRN", [x], name, size=layer.n, **constants)


def _flatten(graph: Graph, layer: Flatten, name: str, x: str) -> str:
    """Features in our order, channels last."""
    return graph.node("Flatten", [graph.node("Transpose", [x], name, perm=[0, 2, 3, 1])], name)


def _average(graph: Graph, layer: GlobalAvgPool, name: str, x: str) -> str:
    return graph.node("Flatten", [graph.node("GlobalAveragePool", [x], name)], name)


def _zero_pad(graph: Graph, layer: ZeroPadShortcut, name: str, x: str) -> str:
    """Option A: every stride-th pixel, and zeros behind the channels."""
    bounds = {
        "starts": [0, 0],
        "ends": [2**31 - 1] * 2,
        "axes": [2, 3],
        "steps": [layer.stride] * 2,
    }
    inputs = [graph.array(f"{name}{CONSTANT}{k}", np.array(v, np.int64)) for k, v in bounds.items()]
    sampled = graph.node("Slice", [x, *inputs], name)
    behind = np.array([0] * 5 + [layer.K - graph.channels[x]] + [0] * 2, np.int64)
    y = graph.node("Pad", [sampled, graph.array(f"{name}{CONSTANT}pads", behind)], name)
    graph.channels[y] = layer.K
    return y


def _sequence(graph: Graph, layer: Sequential, name: str, x: str) -> str:
    for key, child in layer.children.items():
        x = write_layer(graph, child, f"{name}.{key}" if name else key, x)
    return x


def _residual(graph: Graph, block: ResidualBlock, name: str, x: str) -> str:
    body = write_layer(graph, block.body, f"{name}.body", x)
    shortcut = write_layer(graph, block.shortcut, f"{name}.shortcut", x)
    return write_layer(graph, block.relu, f"{name}.relu", graph.node("Add", [body, shortcut], name))


def _plain(graph: Graph, block: PlainBlock, name: str, x: str) -> str:
    return write_layer(
        graph, block.relu, f"{name}.relu", write_layer(graph, block.body, f"{name}.body", x)
    )


WRITERS |= {
    AvgPool: _avg_pool,
    Dropout: lambda graph, layer, name, x: x,
    Flatten: _flatten,
    LocalResponseNorm: _response_norm,
    Tanh: lambda graph, layer, name, x: graph.node("Tanh", [x], name),
    BatchNorm: _norm,
    BatchNormReLU: lambda graph, layer, name, x: graph.node(
        "Relu", [_norm(graph, layer, name, x)], name
    ),
    Conv2d: _conv,
    GlobalAvgPool: _average,
    Identity: lambda graph, layer, name, x: x,
    Linear: _linear,
    MaxPool: _max_pool,
    PlainBlock: _plain,
    ReLU: lambda graph, layer, name, x: graph.node("Relu", [x], name),
    ResidualBlock: _residual,
    Sequential: _sequence,
    ZeroPadShortcut: _zero_pad,
}
WRITERS |= dict.fromkeys(FOLDED, lambda graph, layer, name, x: not_exported(layer))
