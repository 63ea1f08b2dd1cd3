"""Reads a folder of faces in the layout of LFW and aligns them.

The pictures show real people and are for research: crops and embeddings stay in
a scratch folder outside the project; only aggregates may leave it.
"""

import pathlib
import tempfile

import numpy as np
from PIL import Image

import pipeline
from sources import ROOT

MODELS = ROOT / "models"
SCRATCH = pathlib.Path(tempfile.gettempdir()) / "postern-models"


class Pipeline:
    """Detector and mesh of the shipped models, up to the aligned crop."""

    def __init__(self, template, detector="blazeface-short"):
        self._detect = pipeline.Detector(MODELS / detector)
        self._mesh = pipeline.Mesh(MODELS / "facemesh-468")
        self._template = template

    def locate(self, image):
        """Returns the primary face and its five points, or (None, None)."""
        face = pipeline.primary(self._detect(image), image.shape[1::-1])
        if face is None:
            return None, None
        mesh, _ = self._mesh(image, face)
        return face, pipeline.five_points(mesh)

    def crop(self, image):
        """Returns the aligned crop, or None where there is no face."""
        _, points = self.locate(image)
        if points is None:
            return None
        return pipeline.align(image, points, self._template)


def read_image(path):
    """Decodes a picture to upright-as-stored uint8 RGB with Pillow."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def images(folder):
    """Every picture of the data set, in a fixed order."""
    return sorted(folder.glob("*/*.jpg"))


def pairs(folder):
    """Yields (image, image, same) of pairs.txt, as indices into images()."""
    index = {(p.parent.name, int(p.stem.rsplit("_", 1)[1])): i
             for i, p in enumerate(images(folder))}
    for line in (folder / "pairs.txt").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 3:
            yield index[fields[0], int(fields[1])], index[fields[0], int(fields[2])], True
        elif len(fields) == 4:
            yield index[fields[0], int(fields[1])], index[fields[2], int(fields[3])], False


def crops(folder, template):
    """Aligned crops of images(): uint8 [n, 112, 112, 3] RGB and a found mask.

    The result is kept in SCRATCH; delete that folder to align again.
    """
    SCRATCH.mkdir(mode=0o700, exist_ok=True)
    cache = SCRATCH / "crops.npz"
    if cache.exists():
        with np.load(cache) as stored:
            return stored["crops"], stored["found"]
    paths, align = images(folder), Pipeline(template)
    result = np.zeros((len(paths), 112, 112, 3), np.uint8)
    found = np.zeros(len(paths), bool)
    for i, path in enumerate(paths):
        crop = align.crop(read_image(path))
        if crop is not None:
            result[i], found[i] = crop, True
        if i % 100 == 0 or i == len(paths) - 1:
            print(f"\raligned {i + 1} of {len(paths)}", end="", flush=True)
    print()
    np.savez(cache, crops=result, found=found)
    return result, found
