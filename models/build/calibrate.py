"""Measures on aligned faces what the quantiser needs and stores only aggregates.

Writes calibration/fr-feature-512.json:
  centre        the mean embedding, over one picture of each person
  equalisation  a factor for each channel of each group of tensors
  tensors       for each tensor of the equalised network its extremes, quantiles
                and the range with the least squared error at 8 bits
  bias          what quantisation takes from the mean of each channel
All are over all pixels and faces together; nothing about a single face is kept.
"""

import argparse
import copy
import pathlib

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import catalogue
import dataset
import embedder
import equalise
import manifest
import pipeline
import quantise
from sources import sha256

BINS = 4096
TAILS = {"p99.9": 1e-3, "p99.99": 1e-4, "p99.999": 1e-5}
FLOAT_PIXELS = {"color": "BGR", "mean": embedder.PIXEL_MEAN, "std": embedder.PIXEL_STD,
                "dtype": "float32", "shape": [1, 112, 112, 3]}
INT8_PIXELS = {"color": "BGR", "mean": quantise.INPUT_MEAN, "std": embedder.PIXEL_STD,
               "dtype": "int8", "scale": 1 / 128, "zero_point": 0, "shape": [1, 112, 112, 3]}


class Observer:
    """Runs a network and shows its activations, as real values, by tensor name."""

    def __init__(self, content, names, pixels=FLOAT_PIXELS):
        # With the default delegate (XNNPACK) PReLU's tensors cannot be read.
        self._interpreter = Interpreter(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        self._interpreter.allocate_tensors()
        self._pixels = pixels
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._tensors = {t["name"]: t for t in self._interpreter.get_tensor_details()
                         if t["name"] in names}

    def __call__(self, crop):
        self._interpreter.set_tensor(self._input, pipeline.preprocess(crop, self._pixels))
        self._interpreter.invoke()
        return {name: self._read(t) for name, t in self._tensors.items()}

    def _read(self, tensor):
        values = self._interpreter.get_tensor(tensor["index"])
        scale, zero_point = tensor["quantization"]
        if values.dtype != np.int8:
            return values
        return (values.astype(np.float32) - zero_point) * np.float32(scale)


def activations(network):
    return {embedder.INPUT, embedder.OUTPUT} | {layer["name"] for layer in network.layers}


def mean_embedding(network, crops):
    observe = Observer(network.to_tflite("float"), {embedder.OUTPUT})
    total = sum(observe(crop)[embedder.OUTPUT].reshape(-1).astype(np.float64) for crop in crops)
    return [round(float(v), 6) for v in total / len(crops)]


def first_of_each_person(folder, found):
    """The index of a picture of each person."""
    owners = [path.parent.name for path in dataset.images(folder)]
    first = {}
    for i in np.flatnonzero(found):
        first.setdefault(owners[i], i)
    return list(first.values())


def channel_peaks(network, crops):
    """The largest magnitude of each channel of each equalisation group."""
    group, peaks = equalise.groups(network), {}
    observe = Observer(network.to_tflite("float"), set(group))
    for crop in crops:
        for name, values in observe(crop).items():
            peak = np.abs(values).max(axis=(0, 1, 2)).astype(np.float64)
            peaks[group[name]] = np.maximum(peaks.get(group[name], 0.0), peak)
    return peaks


def tensor_ranges(network, crops):
    """The candidates for each tensor's range, by label."""
    observe = Observer(network.to_tflite("float"), activations(network))
    limits = extremes(observe, crops)
    counts = histograms(observe, crops, limits)
    tensors = {}
    for name in sorted(limits):
        low, high = limits[name]
        tensors[name] = {"minmax": (low, high)}
        for label, tail in TAILS.items():
            tensors[name][label] = quantile_range(counts[name], low, high, tail)
        tensors[name]["mse"] = least_error_range(counts[name], low, high)
    return {n: {k: [round(float(v), 6) for v in r] for k, r in t.items()}
            for n, t in tensors.items()}


def extremes(observe, crops):
    found = {}
    for crop in crops:
        for name, values in observe(crop).items():
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return found


def histograms(observe, crops, limits):
    counts = {name: np.zeros(BINS, np.int64) for name in limits}
    for crop in crops:
        for name, values in observe(crop).items():
            low, high = limits[name]
            bins = ((values.reshape(-1) - low) * ((BINS - 1e-3) / (high - low))).astype(np.int64)
            counts[name] += np.bincount(bins, minlength=BINS)
    return counts


def quantile_range(counts, low, high, tail):
    """The range that leaves at most tail/2 of the values outside on each side."""
    edges = np.linspace(low, high, BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, tail / 2, side="right"))
    last = int(np.searchsorted(share, 1 - tail / 2, side="left"))
    return min(edges[first], 0.0), max(edges[min(last + 1, BINS)], 0.0)


def least_error_range(counts, low, high):
    """The range whose 8-bit quantisation has the least squared error."""
    edges = np.linspace(low, high, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    weights = counts / counts.sum()
    best, best_error = (low, high), np.inf
    shares = np.linspace(0.2, 1.0, 41)
    for a in shares if low < 0 else (1.0,):
        for b in shares if high > 0 else (1.0,):
            scale = (b * high - a * low) / 255
            lost = (weights * (np.clip(centres, a * low, b * high) - centres) ** 2).sum()
            error = lost + scale * scale / 12  # clipping, and rounding of the rest
            if error < best_error:
                best, best_error = (a * low, b * high), error
    return best


def bias_corrections(network, tensors, crops):
    """What to add to each convolution so that its channels keep their means.

    Goes from the input to the output, so that each correction sees those before
    it. Alters network.
    """
    ranges = {name: t[quantise.RANGE] for name, t in tensors.items()}
    wanted = channel_means(Observer(network.to_tflite("float"), activations(network)), crops)
    corrections = {}
    for layer in network.layers:
        if layer["op"] != "Conv":
            continue
        name = layer["name"]
        content = quantise.quantise(copy.deepcopy(network), ranges)
        got = channel_means(Observer(content, {name}, INT8_PIXELS), crops)[name]
        corrections[name] = [round(float(v), 6) for v in wanted[name] - got]
        quantise.add_bias(network, {name: corrections[name]})
        print(f"\rcorrected {name}", end="", flush=True)
    print()
    return corrections


def channel_means(observe, crops):
    sums = {}
    for crop in crops:
        for name, values in observe(crop).items():
            mean = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + mean
    return {name: total / len(crops) for name, total in sums.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="faces for the ranges")
    parser.add_argument("--bias-count", type=int, default=64, help="faces for the bias")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    crops, found = dataset.crops(options.data, catalogue.TEMPLATE)
    chosen = crops[np.random.default_rng(options.seed).choice(
        np.flatnonzero(found), options.count, replace=False)]
    network = catalogue.load_network()
    centre = mean_embedding(network, crops[first_of_each_person(options.data, found)])
    embedder.centre(network, centre)
    # Rounded before use, so that a build from the file sees the same numbers.
    factors = {g: [float(f"{v:.4g}") for v in s]
               for g, s in equalise.scales(network, channel_peaks(network, chosen)).items()}
    equalise.apply(network, factors)
    tensors = tensor_ranges(network, chosen)
    bias = bias_corrections(network, tensors, chosen[:options.bias_count])
    quantise.STATISTICS.write_bytes(manifest.encode({
        "network": catalogue.ONNX_MEMBER,
        "network_sha256": sha256(catalogue.FACEPLUGIN.read(catalogue.ONNX_MEMBER)),
        "data": options.data.name, "faces": options.count, "faces_for_bias": options.bias_count,
        "seed": options.seed,
        "centre": centre, "tensors": tensors, "equalisation": factors, "bias": bias,
    }))
    print(f"{len(tensors)} tensors, {len(chosen)} faces -> {quantise.STATISTICS.name}")


if __name__ == "__main__":
    main()
