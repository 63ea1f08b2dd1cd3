"""Measures postern and its peers on the same pictures, and prints one table.

    run.sh --data DIR [--pairs N] [--markdown FILE]

DIR is in LFW's layout, with pairs.txt. The pictures are those of N pairs of each kind,
spread evenly over the folds. Every engine gets whole pictures and finds the face by
itself; "onnxruntime, same network" gets postern's aligned faces and tells the network
alone. FNMR is over all cross pairs of the pictures, a picture without a face is a miss
in each of its genuine pairs. Times are wall times a picture, one engine after the other.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "peers"
sys.path.insert(0, str(ROOT / "models" / "build"))
FMRS = (1e-2, 1e-3, 1e-4)


def subset(data, pairs):
    """Lays out the pictures of some pairs as a data set of its own, by links."""
    lines = (data / "pairs.txt").read_text().splitlines()
    folds, per_fold = (int(n) for n in lines[0].split())
    take = min(per_fold, max(1, pairs // folds))
    kept = []
    for fold in range(folds):
        block = lines[1 + 2 * per_fold * fold:1 + 2 * per_fold * (fold + 1)]
        kept += block[:take] + block[per_fold:per_fold + take]
    folder = CACHE / "subset"
    shutil.rmtree(folder, ignore_errors=True)
    names = []
    for line in kept:
        f = line.split()
        two = [(f[0], f[1]), (f[0], f[2])] if len(f) == 3 else [(f[0], f[1]), (f[2], f[3])]
        names.append([f"{person}/{person}_{int(n):04d}.jpg" for person, n in two] + [len(f) == 3])
    images = sorted({n for a, b, _ in names for n in (a, b)})
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(data / image, folder / image)
    (folder / "pairs.txt").write_text("\n".join([f"{folds} {take}"] + kept) + "\n")
    index = {image: i for i, image in enumerate(images)}
    return folder, images, [(index[a], index[b], same) for a, b, same in names], folds


class Marks:
    """Accuracy on the pairs and FNMR at fixed FMR on all cross pairs."""

    def __init__(self, embeddings, images, pairs, folds, similarity):
        found = np.array([e is not None for e in embeddings])
        if not found.any():
            raise ValueError("no face was found in any picture")
        dim = len(next(e for e in embeddings if e is not None))
        matrix = np.array([e if e is not None else np.zeros(dim) for e in embeddings], np.float64)
        self.missing = int((~found).sum())
        scores = similarity(matrix)
        scores[~found] = scores[:, ~found] = -np.inf
        person = np.unique([i.split("/")[0] for i in images], return_inverse=True)[1]
        upper = np.triu(np.ones(scores.shape, bool), 1)
        same = person[:, None] == person[None]
        genuine, impostor = scores[upper & same], np.sort(scores[upper & ~same])[::-1]
        self.genuine, self.impostor = len(genuine), len(impostor)
        self.fnmr = {f: float((genuine <= impostor[int(f * len(impostor))]).mean()) for f in FMRS}
        self.accuracy = self._accuracy(scores, pairs, folds)

    @staticmethod
    def _accuracy(scores, pairs, folds):
        s = np.array([scores[a, b] for a, b, _ in pairs])
        same = np.array([p[2] for p in pairs])
        fold = np.arange(len(pairs)) * folds // len(pairs)
        right = 0
        for k in range(folds):
            train = fold != k
            candidates = np.unique(s[train][np.isfinite(s[train])])
            best = max(candidates, key=lambda t: int(((s[train] > t) == same[train]).sum()))
            right += int(((s[~train] > best) == same[~train]).sum())
        return right / len(pairs)


def cosine(m):
    n = m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-12)
    return n @ n.T


def nearness(m):
    square = (m * m).sum(axis=1)
    return -(square[:, None] + square[None] - 2 * m @ m.T)


def postern(folder, *args):
    out = subprocess.run([str(ROOT / "bin" / "postern"), "eval", "--data", str(folder), "--workers", "1", *args],
                         check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return out.stdout


def run_postern(folder, images):
    r = json.loads(postern(folder, "--json"))
    points = {p["fmr"]: p["fnmr"] for p in r["points"]}
    return {"accuracy": r["accuracy"], "fnmr": {f: points[f] for f in FMRS}, "ms": r["ms_per_picture"],
            "missing": len(r.get("undetected") or []), "name": f"postern, {r['model_id']} (LiteRT, 1 thread)"}


def run_onnx(folder, images):
    """The float network that postern's embedder was quantised from, on the same crops."""
    import onnxruntime
    import sources
    crops = CACHE / "crops"
    shutil.rmtree(crops, ignore_errors=True)
    postern(folder, "--crops", str(crops))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sources.FACEPLUGIN.read("package/model/fr_feature.onnx"), options)
    name = session.get_inputs()[0].name
    embeddings, spent = [], 0.0
    for image in images:
        path = crops / (pathlib.Path(image).stem + ".png")
        if not path.exists():
            embeddings.append(None)
            continue
        rgb = np.asarray(Image.open(path).convert("RGB"), np.float32)
        start = time.perf_counter()
        x = ((rgb[:, :, ::-1] - 127.5) / 128).transpose(2, 0, 1)[None]
        embeddings.append(session.run(None, {name: np.ascontiguousarray(x)})[0].reshape(-1))
        spent += time.perf_counter() - start
    return {"embeddings": embeddings, "similarity": cosine, "ms": 1e3 * spent / len(images),
            "name": f"onnxruntime {onnxruntime.__version__}, same network in float, the network alone (1 thread)"}


def run_dlib(folder, images):
    """What face_recognition does: HOG detector, five points, ResNet-34."""
    import dlib
    import face_recognition_models as models
    detect = dlib.get_frontal_face_detector()
    points = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
    network = dlib.face_recognition_model_v1(models.face_recognition_model_location())
    embeddings, spent = [], 0.0
    for image in images:
        start = time.perf_counter()
        rgb = np.ascontiguousarray(np.asarray(Image.open(folder / image).convert("RGB")))
        boxes = detect(rgb, 1)
        best = max(boxes, key=lambda b: b.area(), default=None)
        embeddings.append(None if best is None else
                          np.array(network.compute_face_descriptor(rgb, points(rgb, best))))
        spent += time.perf_counter() - start
    return {"embeddings": embeddings, "similarity": nearness, "ms": 1e3 * spent / len(images),
            "name": f"dlib {dlib.__version__}, as face_recognition uses it"}


def run_human(folder, images):
    node = CACHE / "node"
    if not (node / "human.mjs").exists():
        raise FileNotFoundError("npm was not here")
    (node / "list.json").write_text(json.dumps([str(folder / i) for i in images]))
    subprocess.run(["node", "human.mjs", "list.json", "out.json"], check=True, cwd=node, stdout=subprocess.DEVNULL)
    r = json.loads((node / "out.json").read_text())
    return {"embeddings": r["embeddings"], "similarity": cosine, "ms": 1e3 * r["seconds"] / len(images),
            "name": f"@vladmandic/human {r['version']} (tfjs, WebAssembly)"}


ENGINES = {"postern": run_postern, "onnxruntime": run_onnx, "dlib": run_dlib, "human": run_human}

ABSENT = """Not in the table: deepface and insightface. Their packages carry code only and fetch
the weights from elsewhere at the first run; what no package registry ships, this run
does not use."""


def machine():
    name = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def percent(v):
    return f"{100 * v:.2f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=int, default=500, help="of each kind (default 500)")
    parser.add_argument("--only", action="append", choices=tuple(ENGINES), help="one engine; may be given again")
    options = parser.parse_args()
    folder, images, pairs, folds = subset(options.data.resolve(), options.pairs)
    rows, marks = [], None
    for engine in options.only or ENGINES:
        print(f"{engine}: {len(images)} pictures", file=sys.stderr, flush=True)
        try:
            r = ENGINES[engine](folder, images)
        except Exception as error:  # one peer that cannot run must not hide the others
            print(f"{engine} could not be measured: {error}", file=sys.stderr, flush=True)
            rows.append(f"| {engine} | not measured: {type(error).__name__} | | | | | |")
            continue
        if "embeddings" in r:
            marks = Marks(r["embeddings"], images, pairs, folds, r["similarity"])
            r.update(accuracy=marks.accuracy, fnmr=marks.fnmr, missing=marks.missing)
        rows.append(f"| {r['name']} | {percent(r['accuracy'])} | " + " | ".join(percent(r["fnmr"][f]) for f in FMRS)
                    + f" | {r['missing']} | {r['ms']:.1f} |")
    count = f"{marks.genuine:,} genuine and {marks.impostor:,} impostor cross pairs" if marks else ""
    print(f"{machine()}; {len(images)} pictures of {len(pairs)} pairs, {count}\n")
    print("| engine | pairs accuracy | " + " | ".join(f"FNMR at FMR {f:.0e}" for f in FMRS) + " | no face | ms a picture |")
    print("|---|" + "---|" * (len(FMRS) + 3))
    print("\n".join(rows))
    print("\n" + ABSENT)


if __name__ == "__main__":
    main()
