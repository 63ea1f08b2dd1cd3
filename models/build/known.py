"""What each network must answer to two pictures that a formula draws.

A device compares its own answers with these before it looks at anybody, so that a
runtime that computes wrongly on its CPU is found. The pictures are drawn with integers
alone, and the answers computed with LiteRT's reference kernels, which are the same on
every CPU; others round differently, which the tolerance allows for.
"""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

# As a share of the answer's standard deviation. Between kernels int8 networks differ by
# up to 0.16, float ones by 1e-5; an answer that has nothing to do with the right one
# differs by 1.4.
TOLERANCE = {"int8": 0.4, "float32": 0.01}
# How many values of an output are kept: of an embedding all. The steps between kept
# ones are odd, so that no lane of a vector instruction escapes.
MOST = {"embedding": 4096}
MOST_OF_OTHERS = 128
DIGITS = 4


def face(side):
    """A crude face on the embedder's template, RGB; models.Draw draws the same."""
    y, x = np.mgrid[0:side, 0:side].astype(np.int64)
    u, v = 256 * x // side - 128, 256 * y // side - 128
    head = 2 * u * u + (v - 28) ** 2
    eye, brow = abs(u) - 40, v + 10
    picture = np.empty((side, side, 3), np.int64)
    picture[:] = 90, 100, 110
    for colour, where in (
            ((205, 160, 135), head < 18432),
            ((60, 45, 35), (head < 19500) & (v < -70)),
            ((190, 140, 118), (abs(u) < 12) & (v > -4) & (v < 40)),
            ((40, 30, 25), eye * eye + 4 * brow * brow < 260),
            ((80, 60, 45), (abs(eye) < 24) & (abs(brow + 22) < 5)),
            ((150, 60, 60), u * u + 9 * (v - 83) ** 2 < 1200)):
        picture[where] = colour
    return np.clip(picture - ((u + v) >> 3)[..., None], 0, 255)


PICTURES = {"face": face, "negative": lambda side: 255 - face(side)}


def answers(content, entry, outputs):
    """Returns the manifest's known_answers; entry is its input, outputs its outputs."""
    interpreter = Interpreter(model_content=content, num_threads=1,
                              experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    source, = interpreter.get_input_details()
    found = []
    for name, draw in PICTURES.items():
        interpreter.set_tensor(source["index"], _tensor(draw(entry["shape"][1]), entry))
        interpreter.invoke()
        raw = {o["name"]: interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()}
        found.append({"picture": name, "outputs": [_answer(raw[o["name"]], o, entry["dtype"]) for o in outputs]})
    return found


def _tensor(picture, entry):
    if entry["color"] == "BGR":
        picture = picture[..., ::-1]
    value = (picture - entry["mean"]) / entry["std"]
    if entry["dtype"] == "int8":
        value = np.clip(np.floor(value / entry["scale"] + 0.5) + entry["zero_point"], -128, 127)
    return value.astype(entry["dtype"])[None]


def _answer(raw, output, dtype):
    values = raw.astype(np.float64).ravel()
    if output["dtype"] == "int8":
        values = (values - output["zero_point"]) * output["scale"]
    step = -(-len(values) // MOST.get(output["role"], MOST_OF_OTHERS)) | 1
    kept = values[::step]
    spread = kept.std() if len(kept) > 1 else abs(kept[0])
    return {"name": output["name"], "step": step, "tolerance": _short(TOLERANCE[dtype] * spread),
            "values": [_short(v) for v in kept]}


def _short(value):
    return float(f"{value:.{DIGITS}g}")
