"""Compares quantised detectors and meshes with the float ones that are shipped.

    detection.py --data DIR    what quantising would save and what it would cost

Every variant runs the whole reference pipeline on the same pictures. Its five points
are held against those of the shipped pair, and its crops are embedded by the float
embedder: the share of faces found, the points' error in per cent of the eye distance,
the error rate. The ranges of activations come from other people's pictures. Nothing is
written; what it printed last is in the cards.
"""

import argparse
import collections
import pathlib
import tempfile
import time

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer, recipe

import calibrate
import catalogue
import dataset
import manifest
import metrics
import pipeline
import tflite_writer
from reference import folder

# Regressions whose last step must stay float: pixels do not fit into 256 levels.
LAST = {"facemesh-468": "conv2d_20"}
RECIPES = {
    "int8 weights": recipe.weight_only_wi8_afp32,
    "dynamic int8": recipe.dynamic_wi8_afp32,
    "full int8": recipe.static_wi8_ai8,
}
PRESENT = 0.5


def widen(content):
    """Makes float16 constants float32, which is what their DEQUANTIZE does when run."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph, = model.subgraphs
    for code in model.operatorCodes:  # the quantiser reads only the newer field
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    kept, source = [], {}
    for op in graph.operators:
        half = graph.tensors[op.inputs[0]]
        if half.type != schema.TensorType.FLOAT16:
            kept.append(op)
            continue
        values = np.frombuffer(bytes(model.buffers[half.buffer].data), np.float16)
        model.buffers[half.buffer].data = np.frombuffer(
            values.astype(np.float32).tobytes(), np.uint8)
        half.type = schema.TensorType.FLOAT32
        source[op.outputs[0]] = op.inputs[0]
    for op in kept:
        op.inputs = [source.get(int(i), int(i)) for i in op.inputs]
    graph.operators = kept
    model.signatureDefs = [signature(graph)]  # the quantiser asks for one
    return tflite_writer.pack(model)


def signature(graph):
    def named(indices):
        return [tflite_writer.tensor_map(graph.tensors[i].name.decode(), int(i)) for i in indices]
    result = schema.SignatureDefT()
    result.signatureKey, result.subgraphIndex = "serving_default", 0
    result.inputs, result.outputs = named(graph.inputs), named(graph.outputs)
    return result


def ranges(content, spec, inputs):
    """The extremes of every activation, as the quantiser wants them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph, = model.subgraphs
    made = set(graph.inputs) | {i for op in graph.operators for i in op.outputs}
    names = {graph.tensors[i].name.decode() for i in made}
    observe = calibrate.Observer(content, names, spec)
    return {name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in calibrate.extremes(observe, inputs).items()}


def variant(model_id, kind, inputs):
    """Writes a quantised model with its manifest into a folder of its own."""
    shipped = pipeline.Model(folder(model_id)).manifest
    content = widen((folder(model_id) / pipeline.MODEL_FILE).read_bytes())
    rules = RECIPES[kind]()
    if kind == "full int8" and model_id in LAST:
        rules += [{"regex": LAST[model_id], "operation": op, "algorithm_key": "no_quantize"}
                  for op in ("CONV_2D", "OUTPUT")]
    q = quantizer.Quantizer(bytearray(content), rules)
    statistics = ranges(content, shipped["input"], inputs) if kind == "full int8" else None
    result = bytes(q.quantize(statistics, enable_progress_report=False).quantized_model)
    # The quantiser lengthens the name of an output that it turns back into floats.
    roles = {made["name"]: o["role"] for made in manifest.tensors(result)[1]
             for o in shipped["outputs"] if made["name"].startswith(o["name"])}
    pixels = {k: shipped["input"][k] for k in ("color", "mean", "std")}
    extra = {k: shipped[k] for k in ("detector",) if k in shipped}
    target = pathlib.Path(tempfile.mkdtemp()) / model_id
    target.mkdir()
    (target / pipeline.MODEL_FILE).write_bytes(result)
    (target / pipeline.MANIFEST_FILE).write_bytes(manifest.encode(manifest.make(
        model_id, shipped["role"], result, shipped["license"], shipped["source"], pixels,
        roles, extra)))
    return target


class Pair:
    """A detector and a mesh, shipped or quantised."""

    def __init__(self, detector, mesh):
        self.detect, self.mesh = pipeline.Detector(detector), pipeline.Mesh(mesh)

    def points(self, image):
        face = pipeline.primary(self.detect(image), image.shape[1::-1])
        if face is None:
            return None
        mesh, presence = self.mesh(image, face)
        return pipeline.five_points(mesh) if presence > PRESENT else None


def sample(data, count):
    """Pictures of people with two to five, so that no one's pairs outweigh the others'."""
    by_person = collections.defaultdict(list)
    for path in dataset.images(data):
        by_person[path.parent.name].append(path)
    people = [p for p in by_person.values() if 2 <= len(p) <= 5]
    chosen = [people[i] for i in np.random.default_rng(1).permutation(len(people))]
    return [p for group in chosen for p in group][:count], [
        p[0] for p in by_person.values() if len(p) == 1]


def inputs_of(pair, paths):
    """What detector and mesh see of these pictures."""
    squares, regions = [], []
    for path in paths:
        image = dataset.read_image(path)
        squares.append(pipeline.letterbox(image, 128)[0])
        face = pipeline.primary(pair.detect(image), image.shape[1::-1])
        if face is not None:
            regions.append(pipeline.warp(image, pipeline.roi_matrix(face, 192), (192, 192)))
    return squares, regions


def cost(target, calls=60):
    """Bytes, and the least processor milliseconds of a call on one thread."""
    content = (target / pipeline.MODEL_FILE).read_bytes()
    model = pipeline.Model(target)
    shape = model.manifest["input"]["shape"][1:]
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    array = pipeline.preprocess(image, model.manifest["input"])
    engine, least = pipeline.Engine(content), np.inf
    for _ in range(calls):
        start = time.process_time()
        engine(array)
        least = min(least, time.process_time() - start)
    return len(content), least * 1e3


def measure(name, pair, paths, embed, reference):
    """Prints one row; returns the points and embeddings."""
    points, vectors = [], []
    for path in paths:
        image = dataset.read_image(path)
        p = pair.points(image)
        points.append(p)
        vectors.append(None if p is None else pipeline.normalise(
            embed(pipeline.align(image, p, catalogue.TEMPLATE))["embedding"]))
    found = [i for i, p in enumerate(points) if p is not None]
    people = np.unique([paths[i].parent.name for i in found], return_inverse=True)[1]
    scores = metrics.Scores(np.array([vectors[i] for i in found]), people)
    row = (f"| {name} | {len(found)} of {len(paths)} | {scores.fnmr(1e-2):.2%} | "
           f"{scores.fnmr(1e-3):.2%} |")
    if reference is not None:
        base, base_vectors = reference
        both = [i for i in found if base[i] is not None]
        error = [np.linalg.norm(points[i] - base[i], axis=1).mean()
                 / np.linalg.norm(base[i][0] - base[i][1]) for i in both]
        alike = [vectors[i] @ base_vectors[i] for i in both]
        row += (f" {np.median(error):.2%}, {np.quantile(error, 0.95):.2%}, {max(error):.2%} | "
                f"{np.mean(alike):.4f}, {min(alike):.4f} |")
    print(row, flush=True)
    return points, vectors


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=400, help="pictures measured")
    parser.add_argument("--calibration", type=int, default=100, help="pictures for the ranges")
    options = parser.parse_args()

    detector, mesh = folder("blazeface-short"), folder("facemesh-468")
    shipped = Pair(detector, mesh)
    paths, others = sample(options.data, options.count)
    squares, regions = inputs_of(shipped, others[:options.calibration])
    detectors = {k: variant("blazeface-short", k, squares) for k in RECIPES}
    meshes = {k: variant("facemesh-468", k, regions) for k in RECIPES}

    print("| network | bytes | ms a call, processor time |\n|---|---|---|")
    for label, shipped_folder, others in (("detector", detector, detectors), ("mesh", mesh, meshes)):
        for kind, target in {"as shipped": shipped_folder, **others}.items():
            size, ms = cost(target)
            print(f"| {label}, {kind} | {size} | {ms:.2f} |", flush=True)

    print("\n| variant | face found | FNMR at FMR 1e-2 | at 1e-3 | five points: median, 95 %, "
          "largest error, of the eye distance | cosine to the float pair's: mean, least |\n"
          "|---|---|---|---|---|---|")
    embed = pipeline.Model(folder("fr-feature-512-int8"))
    reference = measure("as shipped", shipped, paths, embed, None)
    for kind in RECIPES:
        measure(f"detector {kind}", Pair(detectors[kind], mesh), paths, embed, reference)
        measure(f"mesh {kind}", Pair(detector, meshes[kind]), paths, embed, reference)


if __name__ == "__main__":
    main()
