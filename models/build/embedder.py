"""Writes the fr_feature ONNX network out as TFLite, operator by operator."""

import math

import numpy as np
import onnx
from onnx import numpy_helper

from tflite_writer import Graph

INPUT, OUTPUT = "image", "embedding"
# Tensors of the network that sees two views.
MIRRORED, VIEWS, COLUMNS = "image/mirrored", "image/views", "/columns"
# The ONNX network takes (pixel - 127.5) / 128.
PIXEL_MEAN, PIXEL_STD = 127.5, 128.0


class Network:
    """The ONNX graph as a list of layers with NHWC weights.

    A layer is a dict with op, name, x (names of inputs), and its arrays. Names
    are op_NN in graph order and are what calibration statistics refer to.
    """

    def __init__(self, onnx_bytes):
        graph = onnx.load_from_string(onnx_bytes).graph
        self.input_shape = [1, 112, 112, 3]
        arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        names = {graph.input[0].name: INPUT}
        self.layers = []
        for number, node in enumerate(graph.node):
            layer = _layer(node, arrays, names, number)
            names[node.output[0]] = layer["name"]
            self.layers.append(layer)

    def to_tflite(self, description, mirrored=False):
        """Returns the bytes of the float TFLite model.

        With mirrored the network sees the face and its mirror image, as a batch of
        two, and returns the mean of the two embeddings.
        """
        g = Graph(description)
        x = g.placeholder(INPUT, self.input_shape)
        tensors = {INPUT: both_views(g, x) if mirrored else x}
        for layer in self.layers:
            if mirrored and layer is self.layers[-2]:
                layer = mean_of_views(g, layer, tensors)
            inputs = [tensors[n] for n in layer["x"]]
            tensors[layer["name"]] = _emit(g, layer, inputs)
        out = tensors[self.layers[-1]["name"]]
        g.rename(out, OUTPUT)
        return g.finish({INPUT: x}, {OUTPUT: out})


def both_views(g, x):
    """The picture and its mirror image as a batch of two."""
    return g.stack([x, g.mirror(x, MIRRORED)], VIEWS)


def mean_of_views(g, layer, tensors):
    """Makes the last, linear convolution take the mean of the two views.

    The views of a batch of two become the two columns of one picture, over which
    a kernel of 1 x 2 with half the weights twice is their mean.
    """
    source, = layer["x"]
    batch, _, _, channels = g.shape(tensors[source])
    columns = source + COLUMNS
    tensors[columns] = g.reshape(tensors[source], columns, [1, 1, batch, channels])
    weight = np.repeat(layer["weight"] / np.float32(batch), batch, axis=2)
    return {**layer, "x": [columns], "weight": weight}


def shift_input(network, mean):
    """Makes the network take (pixel - mean) / PIXEL_STD instead of PIXEL_MEAN.

    The difference goes into the first convolution's bias. Inside the image this
    is exact; only the one-pixel zero border moves, by (mean - PIXEL_MEAN) of a
    grey level.
    """
    first = network.layers[0]
    shift = (mean - PIXEL_MEAN) / PIXEL_STD
    sums = [math.fsum(channel.ravel()) for channel in first["weight"]]
    first["bias"] = (first["bias"] + shift * np.array(sums)).astype(np.float32)


def centre(network, mean):
    """Subtracts the mean embedding, so that two strangers' cosine is 0 on average.

    What all faces share says nothing about whose they are. The last convolution is
    linear, so this costs nothing.
    """
    last = network.layers[-2]
    last["bias"] = (last["bias"].astype(np.float64) - mean).astype(np.float32)


def _layer(node, arrays, names, number):
    op = node.op_type
    name = f"{op.lower()}_{number:02d}"
    data = [names[n] for n in node.input if n in names]
    params = [arrays[n] for n in node.input if n in arrays]
    layer = {"op": op, "name": name, "x": data}
    if op == "Conv":
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        weight, bias = params
        group = attributes["group"]
        stride, = set(attributes["strides"])
        pad, = set(attributes["pads"])
        if set(attributes["dilations"]) != {1} or group not in (1, weight.shape[0]):
            raise ValueError(f"{name}: convolution of an unexpected kind")
        depthwise = group > 1
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        layer.update(
            depthwise=depthwise, stride=stride, pad=pad, bias=bias.astype(np.float32),
            weight=np.ascontiguousarray(weight.transpose(order), dtype=np.float32))
    elif op == "PRelu":
        layer["alpha"] = params[0].reshape(1, 1, -1).astype(np.float32)
    elif op == "Reshape":
        layer["shape"] = [1, 512]
    elif op != "Add":
        raise ValueError(f"{name}: unexpected operator {op}")
    return layer


def _emit(g, layer, inputs):
    name = layer["name"]
    if layer["op"] == "PRelu":
        return g.prelu(inputs[0], name, layer["alpha"])
    if layer["op"] == "Add":
        return g.add(inputs[0], inputs[1], name)
    if layer["op"] == "Reshape":
        return g.reshape(inputs[0], name, layer["shape"])
    x, pad, stride = inputs[0], layer["pad"], layer["stride"]
    # TFLite's SAME equals a symmetric pad of 1 only at stride 1; at stride 2 it
    # pads bottom and right alone, so the padding becomes an operator of its own.
    same = pad == 1 and stride == 1
    if pad and not same:
        x = g.pad(x, name + "/pad", pad)
    write = g.depthwise if layer["depthwise"] else g.conv
    return write(x, name, layer["weight"], layer["bias"], stride, same)
