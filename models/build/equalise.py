"""Cross-layer equalisation: gives the channels of a tensor similar ranges.

An int8 tensor has one scale for all its channels, so a channel a hundred times
smaller than the largest keeps two or three levels. Dividing a channel by s
where it is made and multiplying by s where it is used changes nothing in
floating point (PReLU and addition commute with a positive s), and weights have
one scale per output channel anyway.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction" (2019) and, where the consumer is a dense convolution and its
weights would suffer, Xiao et al., "SmoothQuant" (2022).
"""

import numpy as np

# Share of a channel's range that is moved into a dense consumer's weights.
DENSE_SHARE = 0.7
SMALLEST = 1e-3  # a channel this far below the largest is treated as if it were not


def groups(network):
    """Returns tensors that must share channel scales, as {member: group name}."""
    group = {}
    for layer in network.layers:
        if layer["op"] == "PRelu":
            group[layer["name"]] = group[layer["x"][0]]
        elif layer["op"] == "Add":
            first, second = (group[n] for n in layer["x"])
            for name, owner in group.items():
                if owner == second:
                    group[name] = first
            group[layer["name"]] = first
        elif layer["op"] == "Conv":
            group[layer["name"]] = layer["name"]
    output = network.layers[-1]["x"][0]  # the embedding keeps its scale
    return {n: g for n, g in group.items() if g != group[output]}


def scales(network, ranges):
    """Returns s for each channel of each group.

    ranges maps a group to its channels' largest magnitudes.
    """
    result = {}
    for name, consumers in _consumers(network).items():
        activation = np.maximum(ranges[name], SMALLEST * np.max(ranges[name]))
        dense = [np.abs(l["weight"]).max(axis=(0, 1, 2)) for l in consumers if not l["depthwise"]]
        if dense:
            weight = np.max(dense, axis=0)
            weight = np.maximum(weight, SMALLEST * weight.max())
            s = activation ** DENSE_SHARE / weight ** (1 - DENSE_SHARE)
        else:
            s = activation
        result[name] = s / np.exp(np.log(s).mean())
    return result


def apply(network, factors):
    """Divides each group's channels by its factors, in place."""
    member = groups(network)
    for layer in network.layers:
        if layer["op"] != "Conv":
            continue
        weight, bias = layer["weight"].astype(np.float64), layer["bias"].astype(np.float64)
        source, target = member.get(layer["x"][0]), member.get(layer["name"])
        if source is not None:
            weight = weight * np.asarray(factors[source])
        if target is not None:
            s = np.asarray(factors[target])
            weight = weight / (s if layer["depthwise"] else s[:, None, None, None])
            bias = bias / s
        layer["weight"], layer["bias"] = weight.astype(np.float32), bias.astype(np.float32)


def _consumers(network):
    member, found = groups(network), {}
    for layer in network.layers:
        if layer["op"] == "Conv" and layer["x"][0] in member:
            found.setdefault(member[layer["x"][0]], []).append(layer)
    return found
