"""Full-int8 quantisation of the embedder from stored statistics of activations."""

import json
import pathlib

import numpy as np
from ai_edge_quantizer import quantizer, recipe

import embedder
import equalise

STATISTICS = pathlib.Path(__file__).parent / "calibration" / "fr-feature-512.json"
# With mean 128 and std 128 an int8 input is the pixel minus 128: scale is
# exactly 1/128, the zero point is 0 and nothing is rounded.
INPUT_MEAN = 128.0
INPUT_RANGE = (-1.0, 127.0 / 128.0)
# Which of the stored ranges of a tensor is used; the model card compares them.
RANGE = "p99.999"


def from_statistics(network, statistics, mirrored=False):
    """Returns the int8 TFLite model of a float network, as calibrate.py prepared it.

    The statistics are of single views; a mirrored view has the same ones.
    """
    embedder.centre(network, statistics["centre"])
    equalise.apply(network, statistics["equalisation"])
    add_bias(network, statistics["bias"])
    ranges = {name: tuple(t[RANGE]) for name, t in statistics["tensors"].items()}
    return quantise(network, ranges, mirrored)


def load_statistics():
    return json.loads(STATISTICS.read_text())


def add_bias(network, corrections):
    """Adds what quantisation was measured to take from each channel's mean."""
    for layer in network.layers:
        if layer["name"] in corrections:
            layer["bias"] = (layer["bias"].astype(np.float64)
                             + corrections[layer["name"]]).astype(np.float32)


def quantise(network, ranges, mirrored=False):
    """Quantises an embedder.Network, which it alters, with one range a tensor."""
    embedder.shift_input(network, INPUT_MEAN)
    content = network.to_tflite("fr-feature-512-int8", mirrored)
    ranges = dict(ranges)
    ranges[embedder.INPUT] = INPUT_RANGE
    _copy_to_views(network, ranges)
    # A symmetric output has zero point 0, so cosines can be taken on the integers.
    bound = max(abs(v) for v in ranges[embedder.OUTPUT])
    last = network.layers[-1]["x"][0]
    ranges[embedder.OUTPUT] = ranges[last] = (-bound, bound * 127 / 128)
    _copy_to_pads(network, ranges)
    statistics = {name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
                  for name, (low, high) in ranges.items()}
    q = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
    return bytes(q.quantize(statistics, enable_progress_report=False).quantized_model)


def _copy_to_views(network, ranges):
    """Mirroring, stacking and reshaping only move values too."""
    ranges[embedder.MIRRORED] = ranges[embedder.VIEWS] = INPUT_RANGE
    source, = network.layers[-2]["x"]
    ranges[source + embedder.COLUMNS] = ranges[source]


def _copy_to_pads(network, ranges):
    """A PAD only moves values, so it has its input's range."""
    for layer in network.layers:
        if layer["op"] == "Conv" and layer["pad"] == 1 and layer["stride"] == 2:
            ranges[layer["name"] + "/pad"] = ranges[layer["x"][0]]
