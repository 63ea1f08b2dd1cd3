"""Makes manifest.json from a model's own tensors. The schema is in ../README.md."""

import json
import re

from ai_edge_litert.interpreter import Interpreter

import known
from sources import sha256


def tensors(content):
    """Returns the model's single input and its outputs as manifest entries."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    source, = interpreter.get_input_details()
    return _entry(source), [_entry(o) for o in interpreter.get_output_details()]


def make(model_id, role, content, license_id, source, preprocessing, output_roles, extra):
    """Returns the manifest as a dict.

    preprocessing is color, mean and std; output_roles maps tensor name to role
    and must name every output; extra holds the role's own section.
    """
    entry, outputs = tensors(content)
    if {o["name"] for o in outputs} != set(output_roles):
        raise ValueError(f"{model_id}: outputs are {[o['name'] for o in outputs]}")
    head = {**_head(entry), **preprocessing, **_quantisation(entry)}
    named = [{"name": o["name"], "role": output_roles[o["name"]], "shape": o["shape"],
              "dtype": o["dtype"], **_quantisation(o)} for o in outputs]
    return {
        "id": model_id,
        "role": role,
        "version": 1,
        "file": "model.tflite",
        "sha256": sha256(content),
        "size": len(content),
        "license": license_id,
        "source": source,
        "input": head,
        "outputs": named,
        "known_answers": known.answers(content, head, named),
        **extra,
    }


def encode(value):
    """JSON with lists of plain values on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _one_line, text)
    return (text + "\n").encode()


def _one_line(match):
    return "[" + re.sub(r"\s*\n\s*", " ", match.group(1)) + "]"


def _entry(details):
    entry = {"name": details["name"], "shape": [int(n) for n in details["shape"]],
             "dtype": details["dtype"].__name__}
    scale, zero_point = details["quantization"]
    if entry["dtype"] == "int8":
        entry.update(scale=float(scale), zero_point=int(zero_point))
    return entry


def _head(entry):
    return {k: entry[k] for k in ("name", "shape", "dtype")}


def _quantisation(entry):
    return {k: entry[k] for k in ("scale", "zero_point") if k in entry}
