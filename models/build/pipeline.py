"""The reference pipeline: image -> face -> five points -> aligned crop -> embedding.

It is the definition the Go implementation is held to. Everything is plain numpy
so that each step can be read; coordinates are pixels with (0, 0) in the middle
of the top-left pixel unless a comment says otherwise.
"""

import dataclasses
import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MODEL_FILE, MANIFEST_FILE = "model.tflite", "manifest.json"
ROI_SCALE = 1.5
# Mesh vertices of each of the five points, in the order of the template. Left
# and right are the image's: vertices 33 and 133 are the subject's right eye,
# which is on the left of an unmirrored picture.
FIVE_POINTS = ((33, 133), (263, 362), (1,), (61,), (291,))


class Model:
    """A shipped model and its manifest behind one call."""

    def __init__(self, folder, threads=1):
        self.manifest = json.loads((folder / MANIFEST_FILE).read_text())
        self._input = self.manifest["input"]
        self._engine = Engine((folder / self.manifest["file"]).read_bytes(), threads)

    def __call__(self, rgb):
        """Runs on uint8 RGB of the model's input size; returns outputs by role."""
        raw = self._engine(preprocess(rgb, self._input))
        outputs = {}
        for spec in self.manifest["outputs"]:
            values = raw[spec["name"]]
            if spec["dtype"] == "int8":
                values = (values.astype(np.float32) - spec["zero_point"]) * np.float32(spec["scale"])
            outputs[spec["role"]] = values.reshape(spec["shape"])
        return outputs


class Engine:
    """A TFLite interpreter: one array in, arrays by tensor name out."""

    def __init__(self, content, threads=1):
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input, = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    def __call__(self, array):
        self._interpreter.set_tensor(self._input["index"], array)
        self._interpreter.invoke()
        return {o["name"]: self._interpreter.get_tensor(o["index"]) for o in self._outputs}


def preprocess(rgb, spec):
    """uint8 pixels of whatever range -> the model's input tensor."""
    pixels = rgb[..., ::-1] if spec["color"] == "BGR" else rgb
    values = (pixels.astype(np.float32) - np.float32(spec["mean"])) / np.float32(spec["std"])
    if spec["dtype"] == "int8":
        # Half away from zero, as math.Round does in Go.
        scaled = values / np.float32(spec["scale"])
        rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) + spec["zero_point"]
        values = np.clip(rounded, -128, 127).astype(np.int8)
    return np.ascontiguousarray(values).reshape(spec["shape"])


def warp(image, matrix, size):
    """Samples image bilinearly at matrix @ (x, y, 1) for each output pixel (x, y).

    Outside the image is black. Where one output pixel covers k > 1 source pixels
    the image is first averaged over k x k blocks, so that far reductions do not
    alias; k is the whole part of the reduction.
    """
    matrix = np.asarray(matrix, np.float64)
    width, height = size
    k = int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))) + 1e-9)
    if k > 1:
        image = _shrink(image, k)
        # Block i covers source pixels ik .. ik+k-1, centred on ik + (k-1)/2.
        matrix = np.column_stack([matrix[:, :2], matrix[:, 2] - (k - 1) / 2]) / k
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    sx = matrix[0, 0] * xs + matrix[0, 1] * ys + matrix[0, 2]
    sy = matrix[1, 0] * xs + matrix[1, 1] * ys + matrix[1, 2]
    x0, y0 = np.floor(sx).astype(np.int64), np.floor(sy).astype(np.int64)
    fx = (sx - x0).astype(np.float32)[..., None]
    fy = (sy - y0).astype(np.float32)[..., None]
    top = _take(image, x0, y0) * (1 - fx) + _take(image, x0 + 1, y0) * fx
    bottom = _take(image, x0, y0 + 1) * (1 - fx) + _take(image, x0 + 1, y0 + 1) * fx
    return np.clip(np.floor(top * (1 - fy) + bottom * fy + 0.5), 0, 255).astype(np.uint8)


def letterbox(image, side):
    """Fits image centred into a black square; returns it and the matrix back."""
    height, width = image.shape[:2]
    scale = max(width, height) / side
    # Pixel edges, not centres, are aligned: edge = centre + 0.5.
    left = (side - width / scale) / 2
    top = (side - height / scale) / 2
    back = np.array([[scale, 0, (0.5 - left) * scale - 0.5],
                     [0, scale, (0.5 - top) * scale - 0.5]])
    return warp(image, back, (side, side)), back


@dataclasses.dataclass
class Detection:
    """A face: box is x0, y0, x1, y1; keypoints are six pairs; all in pixels."""

    box: np.ndarray
    score: float
    keypoints: np.ndarray


def anchors(spec):
    """Anchor centres in [0, 1], row by row, layer by layer."""
    centres = []
    for layer in spec["anchors"]:
        cells = spec["input_size"] // layer["stride"]
        axis = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        centres.append(np.repeat(grid, layer["per_cell"], axis=0))
    return np.concatenate(centres)


class Detector:
    def __init__(self, folder):
        self._model = Model(folder)
        self._spec = self._model.manifest["detector"]
        self._anchors = anchors(self._spec)

    def __call__(self, image):
        """Returns the faces of an RGB image, best score first."""
        side = self._spec["input_size"]
        square, back = letterbox(image, side)
        out = self._model(square)
        scores = sigmoid(out["scores"].reshape(-1).astype(np.float64))
        keep = scores >= self._spec["score_threshold"]
        points = decode(out["regressors"][0][keep], self._anchors[keep], side)
        found = weighted_nms(points, scores[keep], self._spec["nms_iou"])
        return [_to_image(p, s, side, back) for p, s in found]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def decode(raw, centres, side):
    """Regressors -> points in [0, 1]: box corners, then the keypoints."""
    points = raw.reshape(-1, raw.shape[-1] // 2, 2).astype(np.float64) / side
    half = points[:, 1] / 2
    points = points + centres[:, None]
    centre = points[:, 0].copy()
    points[:, 0], points[:, 1] = centre - half, centre + half
    return points


def weighted_nms(points, scores, limit):
    """Merges boxes that overlap the best one into their score-weighted mean."""
    order = np.argsort(-scores, kind="stable")
    points, scores = points[order], scores[order]
    merged = []
    while len(scores):
        same = iou(points[0, :2], points[:, :2]) > limit
        same[0] = True
        weights = scores[same]
        mean = (points[same] * weights[:, None, None]).sum(axis=0) / weights.sum()
        merged.append((mean, float(scores[0])))
        points, scores = points[~same], scores[~same]
    return merged


def iou(box, boxes):
    low = np.maximum(box[0], boxes[:, 0])
    high = np.minimum(box[1], boxes[:, 1])
    inner = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[1] - box[0]) + np.prod(boxes[:, 1] - boxes[:, 0], axis=1) - inner
    return np.where(area > 0, inner / np.where(area > 0, area, 1), 0)


def primary(detections, size):
    """The face the picture is about, or None; size is the image's (width, height).

    It is the one with the greatest box area minus squared distance of its centre
    from the image's centre, so a somewhat larger face at the border does not win.
    """
    def weight(face):
        offset = (face.box[:2] + face.box[2:]) / 2 - np.asarray(size) / 2
        return np.prod(face.box[2:] - face.box[:2]) - offset @ offset
    return max(detections, key=weight, default=None)


def roi_matrix(face, side):
    """Maps the landmark model's input pixels to the image.

    The region is a square of ROI_SCALE times the box's longer side around the
    box's centre, turned so that the line between the eyes is level.
    """
    size = ROI_SCALE * max(face.box[2:] - face.box[:2])
    centre = (face.box[:2] + face.box[2:]) / 2
    dx, dy = face.keypoints[1] - face.keypoints[0]
    angle = np.arctan2(dy, dx)
    step = size / side
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (side - 1) / 2
    return np.column_stack([turn, centre - turn @ [middle, middle]])


class Mesh:
    def __init__(self, folder):
        self._model = Model(folder)
        self._side = self._model.manifest["input"]["shape"][1]

    def __call__(self, image, face):
        """Returns 468 points in image pixels and the presence probability."""
        back = roi_matrix(face, self._side)
        out = self._model(warp(image, back, (self._side, self._side)))
        # The model's points are in pixel edges: 0 is the left edge of pixel 0.
        local = out["landmarks"].reshape(-1, 3)[:, :2].astype(np.float64) - 0.5
        presence = float(sigmoid(out["presence"].reshape(-1)[0].astype(np.float64)))
        return local @ back[:, :2].T + back[:, 2], presence


def five_points(mesh):
    return np.array([mesh[list(ids)].mean(axis=0) for ids in FIVE_POINTS])


def similarity(source, target):
    """The least-squares similarity (Umeyama, 1991) taking source to target."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / s.var(axis=0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def align(image, points, template, side=112):
    """The face upright in a side x side crop with its points on the template."""
    forward = similarity(points, np.asarray(template))
    inverse = np.linalg.inv(forward[:, :2])
    back = np.column_stack([inverse, -inverse @ forward[:, 2]])
    return warp(image, back, (side, side))


def normalise(vector):
    vector = np.asarray(vector, np.float64).reshape(-1)
    return vector / np.linalg.norm(vector)


def _shrink(image, k):
    """Means of k x k blocks; the last row and column of blocks may be partial."""
    height, width = image.shape[:2]
    rows, columns = np.arange(0, height, k), np.arange(0, width, k)
    sums = np.add.reduceat(image.astype(np.float32), rows, axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    counts = np.minimum(k, height - rows)[:, None] * np.minimum(k, width - columns)[None]
    return sums / counts[..., None]


def _take(image, x, y):
    height, width = image.shape[:2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    values = image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside[..., None], values, 0).astype(np.float32)


def _to_image(points, score, side, back):
    pixels = (points * side - 0.5) @ back[:, :2].T + back[:, 2]
    return Detection(pixels[:2].reshape(-1), score, pixels[2:])
