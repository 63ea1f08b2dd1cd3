"""Runs the reference pipeline: measures error on a data set, writes golden vectors.

    reference.py detect --data DIR     how many faces the detectors and the mesh find
    reference.py measure --data DIR    verification error of the embedders
    reference.py golden                models/golden/ from public-domain portraits
"""

import argparse
import io
import itertools
import pathlib
import time

import numpy as np
from PIL import Image

import catalogue
import dataset
import manifest
import metrics
import pipeline
from sources import CACHE, PORTRAITS, sha256

# The default embedder and its float version, and every pair of a shipped and a float one.
SHIPPED, FLOAT = "fr-feature-512-mirror-int8", "fr-feature-512-mirror-float"
EMBEDDERS = ((FLOAT, SHIPPED), ("fr-feature-512-float", "fr-feature-512-int8"))
FMRS = (1e-3, 1e-4, 1e-5)
SCORE_ANCHORS = ((1e-2, 30), (1e-3, 50), (1e-4, 70), (1e-5, 90))
PORTRAIT_NAMES = ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg")
PORTRAIT_FOLDER = "face_recognition-1.3.0/tests/test_images/"


def folder(model_id):
    shipped = dataset.MODELS / model_id
    return shipped if shipped.exists() else CACHE / "models" / model_id


def embed(model_id, crops):
    """Returns L2-normalised embeddings and the median milliseconds of a call."""
    model = pipeline.Model(folder(model_id))
    result, times = np.zeros((len(crops), 512), np.float32), []
    for i, crop in enumerate(crops):
        start = time.perf_counter()
        vector = model(crop)["embedding"]
        times.append(time.perf_counter() - start)
        result[i] = pipeline.normalise(vector)
    return result, float(np.median(times) * 1e3)


def detect(data, detectors, every):
    mesh = pipeline.Mesh(folder("facemesh-468"))
    paths = dataset.images(data)[::every]
    for model_id in detectors:
        detector = pipeline.Detector(folder(model_id))
        found = several = present = 0
        for path in paths:
            image = dataset.read_image(path)
            faces = detector(image)
            if faces:
                face = pipeline.primary(faces, image.shape[1::-1])
                present += mesh(image, face)[1] > 0.5
            found += bool(faces)
            several += len(faces) > 1
        for label, count, total in (("a face in", found, len(paths)),
                                    ("several faces in", several, len(paths)),
                                    ("mesh presence > 0.5 in", present, found)):
            low, high = metrics.clopper_pearson(int(count), total)
            print(f"{model_id}: {label} {count} of {total}, {count / total:.2%} "
                  f"[{low:.2%}, {high:.2%}]", flush=True)


def measure(data, write_scores):
    crops, found = dataset.crops(data, catalogue.TEMPLATE)
    paths = dataset.images(data)
    people = np.unique([p.parent.name for p in paths], return_inverse=True)[1]
    pairs = list(dataset.pairs(data))
    print(f"{len(paths)} images, no face in {int((~found).sum())}, {len(pairs)} pairs")
    for model_id, reference_id in ((m, pair[0]) for pair in EMBEDDERS for m in pair):
        embeddings, ms = embed(model_id, crops)
        if model_id == reference_id:
            reference = embeddings
        scores = metrics.Scores(embeddings[found], people[found])
        report(model_id, ms, scores, metrics.pairs_accuracy(embeddings, pairs), people[found])
        alike = (reference[found] * embeddings[found]).sum(axis=1)
        print(f"  cosine to the float embedding: mean {alike.mean():.4f}, least {alike.min():.4f}")
        if write_scores:
            table = score_table(model_id, scores, data.name)
            catalogue.scores_file(model_id).write_bytes(manifest.encode(table))


def report(model_id, ms, scores, accuracy, people):
    right, total = accuracy
    low, high = metrics.clopper_pearson(right, total)
    print(f"\n{model_id}: {ms:.1f} ms a crop with pre- and post-processing in Python, one thread")
    print(f"  {len(scores.genuine)} genuine and {len(scores.impostor)} impostor cross pairs")
    print(f"  pairs accuracy {right / total:.2%} [{low:.2%}, {high:.2%}]")
    for fmr in FMRS:
        low, high = scores.fnmr_interval(fmr, people)
        print(f"  FMR {fmr:.0e}: cosine > {scores.threshold(fmr):.4f}, "
              f"FNMR {scores.fnmr(fmr):.2%} [{low:.2%}, {high:.2%}]")


def score_table(model_id, scores, data):
    """The manifest's calibration: cosine -> score, piecewise linear."""
    points = [{"cosine": -1.0, "score": 0}]
    points += [{"cosine": round(scores.threshold(fmr), 4), "score": score, "fmr": fmr}
               for fmr, score in SCORE_ANCHORS]
    points += [{"cosine": 1.0, "score": 100}]
    return {"id": f"{model_id}/{data}-1", "points": points}


def golden():
    target = dataset.MODELS / "golden"
    target.mkdir(exist_ok=True)
    locate = dataset.Pipeline(catalogue.TEMPLATE)
    embedders = {"int8": pipeline.Model(folder(SHIPPED)), "float": pipeline.Model(folder(FLOAT))}
    vectors = {kind: {} for kind in embedders}
    portraits = []
    for name in PORTRAIT_NAMES:
        content = PORTRAITS.read(PORTRAIT_FOLDER + name)
        image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        face, points = locate.locate(image)
        crop = pipeline.align(image, points, catalogue.TEMPLATE)
        entry = {"file": name, "sha256": sha256(content), "width": image.shape[1],
                 "height": image.shape[0], "box": rounded(face.box), "score": round(face.score, 5),
                 "keypoints": rounded(face.keypoints), "five_points": rounded(points),
                 "embedding": {}}
        for kind, model in embedders.items():
            raw = model(crop)["embedding"].reshape(-1)
            vectors[kind][name] = pipeline.normalise(raw)
            entry["embedding"][kind] = {
                "raw_norm": round(float(np.linalg.norm(raw)), 4),
                "norm": round(float(np.linalg.norm(vectors[kind][name])), 6),
                "first": [round(float(v), 5) for v in vectors[kind][name][:16]]}
        portraits.append(entry)
    cosines = [{"a": a, "b": b, **{k: round(float(v[a] @ v[b]), 4) for k, v in vectors.items()}}
               for a, b in itertools.combinations(PORTRAIT_NAMES, 2)]
    models = {m: sha256((folder(m) / pipeline.MODEL_FILE).read_bytes())
              for m in ("blazeface-short", "facemesh-468", SHIPPED, FLOAT)}
    result = {"package": f"{PORTRAITS.name} {PORTRAITS.version} ({PORTRAITS.registry}, sdist)",
              "folder": PORTRAIT_FOLDER, "decoder": f"Pillow {Image.__version__}",
              "resampling": "k x k block mean for whole-number reductions, then bilinear; "
                            "see warp and letterbox in build/pipeline.py",
              "models": models, "portraits": portraits, "cosines": cosines}
    (target / "portraits.json").write_bytes(manifest.encode(result))
    for line in cosines:
        print(line)


def rounded(array):
    return np.round(np.asarray(array, np.float64), 2).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    m = commands.add_parser("measure")
    m.add_argument("--data", type=pathlib.Path, required=True)
    m.add_argument("--write-scores", action="store_true",
                   help="store the score tables that the manifests carry")
    d = commands.add_parser("detect")
    d.add_argument("--data", type=pathlib.Path, required=True)
    d.add_argument("--detector", action="append", choices=("blazeface-short", "blazeface-full"),
                   help="one of the detectors; may be given again (default both)")
    d.add_argument("--every", type=int, default=1, help="use only each n-th image")
    commands.add_parser("golden")
    options = parser.parse_args()
    if options.command == "detect":
        detect(options.data, options.detector or ("blazeface-short", "blazeface-full"),
               options.every)
    elif options.command == "measure":
        measure(options.data, options.write_scores)
    else:
        golden()


if __name__ == "__main__":
    main()
