"""Writes the fr_liveness ONNX network out as TFLite, operator by operator."""

import json
import math
import pathlib

import numpy as np
import onnx
from ai_edge_quantizer import quantizer, recipe
from onnx import numpy_helper

from tflite_writer import Graph

INPUT, OUTPUT = "image", "classes"
SIDE = 128
# The network takes BGR grey levels as they are, 0 to 255.
PIXEL_MEAN, PIXEL_STD = 0.0, 1.0
STATISTICS = pathlib.Path(__file__).parent / "calibration" / "fr-liveness.json"


def to_tflite(onnx_bytes, description):
    """Returns the bytes of the float TFLite model; its outputs are logits."""
    graph = onnx.load_from_string(onnx_bytes).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    g = Graph(description)
    tensors = {graph.input[0].name: g.placeholder(INPUT, [1, SIDE, SIDE, 3])}
    source = tensors[graph.input[0].name]
    for number, node in enumerate(graph.node):
        if node.op_type == "Shape":  # here the flat tail begins
            break
        name = f"{node.op_type.lower()}_{number:02d}"
        inputs = [tensors[n] for n in node.input if n in tensors]
        tensors[node.output[0]] = _emit(g, node, name, inputs, [arrays[n] for n in node.input if n in arrays])
        last = tensors[node.output[0]]
    weight, bias = _tail(graph, arrays)
    out = g.reshape(g.conv(last, "tail", weight, bias, 1, False), OUTPUT, [1, weight.shape[0]])
    return g.finish({INPUT: source}, {OUTPUT: out})


def _emit(g, node, name, inputs, params):
    op = node.op_type
    if op == "PRelu":
        return g.prelu(inputs[0], name, params[0].reshape(1, 1, -1).astype(np.float32))
    if op == "Add":
        return g.add(inputs[0], inputs[1], name)
    if op == "Mul":
        return g.multiply(inputs[0], inputs[1], name)
    if op == "Relu":
        return g.relu(inputs[0], name)
    if op == "Sigmoid":
        return g.logistic(inputs[0], name)
    if op == "GlobalAveragePool":
        return g.average(inputs[0], name)
    if op != "Conv":
        raise ValueError(f"{name}: unexpected operator {op}")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    weight, bias = params
    group = attributes["group"]
    stride, = set(attributes["strides"])
    pad, = set(attributes["pads"])
    if set(attributes["dilations"]) != {1} or group not in (1, weight.shape[0]):
        raise ValueError(f"{name}: convolution of an unexpected kind")
    depthwise = group > 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    weight = np.ascontiguousarray(weight.transpose(order), dtype=np.float32)
    x, same = inputs[0], pad == 1 and stride == 1
    if pad and not same:  # TFLite's SAME pads a stride of 2 on one side only
        x = g.pad(x, name + "/pad", pad)
    write = g.depthwise if depthwise else g.conv
    return write(x, name, weight, bias.astype(np.float32), stride, same)


def _tail(graph, arrays):
    """MatMul, BatchNormalization and MatMul are linear: one matrix and a bias.

    Sums are exact (fsum), so that every machine gets the same bytes.
    """
    first, second = [arrays[n.input[1]].astype(np.float64) for n in graph.node if n.op_type == "MatMul"]
    norm, = [n for n in graph.node if n.op_type == "BatchNormalization"]
    gain, shift, mean, var = [arrays[n].astype(np.float64) for n in norm.input[1:]]
    epsilon, = [onnx.helper.get_attribute_value(a) for a in norm.attribute if a.name == "epsilon"]
    scale = gain / np.sqrt(var + epsilon)
    offset = shift - mean * scale
    middle = range(first.shape[1])
    weight = [[math.fsum(first[i, k] * scale[k] * second[k, j] for k in middle)
               for i in range(first.shape[0])] for j in range(second.shape[1])]
    bias = [math.fsum(offset[k] * second[k, j] for k in middle) for j in range(second.shape[1])]
    return (np.array(weight, np.float32).reshape(second.shape[1], 1, 1, -1),
            np.array(bias, np.float32))


def quantise(content):
    """Full int8 from the stored ranges of activations."""
    ranges = json.loads(STATISTICS.read_text())["tensors"]
    statistics = {name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
                  for name, (low, high) in ranges.items()}
    q = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
    return bytes(q.quantize(statistics, enable_progress_report=False).quantized_model)
