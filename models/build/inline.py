"""Puts a TFLite model's weights inside the FlatBuffer.

The quantizer appends them behind it and stores offsets, a form meant for files
over 2 GB. Inside, a verifier of the FlatBuffer sees every byte of the model.
"""

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
import numpy as np


def inline(content):
    """Returns the same model with every buffer inside the FlatBuffer."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset:
            data = content[buffer.offset:buffer.offset + buffer.size]
            buffer.data = np.frombuffer(data, np.uint8)
            buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
