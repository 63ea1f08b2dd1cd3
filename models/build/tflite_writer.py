"""A small writer for TFLite flatbuffers: just the operators our networks use.

Tensors are NHWC. Every tensor and operator is appended in the order of the
calls, so the same calls give the same bytes.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_FILE_IDENTIFIER = b"TFL3"
_DTYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
}


class Graph:
    """One subgraph under construction."""

    def __init__(self, description):
        self._description = description
        self._tensors, self._operators, self._codes = [], [], []
        self._buffers = [schema.BufferT()]  # buffer 0 is empty by convention
        self._shapes = []

    def shape(self, tensor):
        return self._shapes[tensor]

    def placeholder(self, name, shape):
        """Adds a float activation and returns its index."""
        return self._add_tensor(name, shape, schema.TensorType.FLOAT32, 0)

    def constant(self, name, array):
        """Adds a constant and returns its index."""
        array = np.ascontiguousarray(array)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), dtype=np.uint8)
        self._buffers.append(buffer)
        return self._add_tensor(
            name, array.shape, _DTYPES[array.dtype], len(self._buffers) - 1)

    def pad(self, x, name, border):
        """Zero-pads height and width by border on every side."""
        n, h, w, c = self.shape(x)
        paddings = np.array([[0, 0], [border, border], [border, border], [0, 0]], np.int32)
        p = self.constant(name + "/paddings", paddings)
        return self._operator(
            "PAD", [x, p], name, [n, h + 2 * border, w + 2 * border, c],
            schema.BuiltinOptions.PadOptions, schema.PadOptionsT())

    def conv(self, x, name, weight, bias, stride, same):
        """2-D convolution; weight is [out, height, width, in]."""
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = 1
        return self._conv_like(
            "CONV_2D", x, name, weight, bias, stride, same, weight.shape[0],
            schema.BuiltinOptions.Conv2DOptions, options)

    def depthwise(self, x, name, weight, bias, stride, same):
        """Depthwise convolution; weight is [1, height, width, channels]."""
        options = schema.DepthwiseConv2DOptionsT()
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideH = options.strideW = stride
        options.depthMultiplier = 1
        options.dilationHFactor = options.dilationWFactor = 1
        return self._conv_like(
            "DEPTHWISE_CONV_2D", x, name, weight, bias, stride, same, weight.shape[3],
            schema.BuiltinOptions.DepthwiseConv2DOptions, options)

    def prelu(self, x, name, alpha):
        """PReLU with one slope a channel; alpha is [1, 1, channels]."""
        a = self.constant(name + "/alpha", alpha)
        return self._operator("PRELU", [x, a], name, self.shape(x), 0, None)

    def add(self, x, y, name):
        return self._operator(
            "ADD", [x, y], name, self.shape(x),
            schema.BuiltinOptions.AddOptions, schema.AddOptionsT())

    def multiply(self, x, y, name):
        return self._operator(
            "MUL", [x, y], name, self.shape(x),
            schema.BuiltinOptions.MulOptions, schema.MulOptionsT())

    def relu(self, x, name):
        return self._operator("RELU", [x], name, self.shape(x), 0, None)

    def logistic(self, x, name):
        return self._operator("LOGISTIC", [x], name, self.shape(x), 0, None)

    def average(self, x, name):
        """Mean over height and width, which stay as 1 x 1."""
        n, _, _, c = self.shape(x)
        axes = self.constant(name + "/axes", np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        return self._operator("MEAN", [x, axes], name, [n, 1, 1, c],
                              schema.BuiltinOptions.ReducerOptions, options)

    def reshape(self, x, name, shape):
        s = self.constant(name + "/shape", np.array(shape, np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self._operator(
            "RESHAPE", [x, s], name, shape, schema.BuiltinOptions.ReshapeOptions, options)

    def mirror(self, x, name):
        """Swaps left and right."""
        axis = self.constant(name + "/axis", np.array([2], np.int32))
        return self._operator("REVERSE_V2", [x, axis], name, self.shape(x),
                              schema.BuiltinOptions.ReverseV2Options, schema.ReverseV2OptionsT())

    def stack(self, tensors, name):
        """Joins tensors along the batch axis."""
        options = schema.ConcatenationOptionsT()
        options.axis = 0
        first = self.shape(tensors[0])
        shape = [sum(self.shape(t)[0] for t in tensors)] + first[1:]
        return self._operator("CONCATENATION", tensors, name, shape,
                              schema.BuiltinOptions.ConcatenationOptions, options)

    def rename(self, tensor, name):
        self._tensors[tensor].name = name

    def finish(self, inputs, outputs):
        """Returns the bytes of the model with one signature, serving_default.

        inputs and outputs map names in the signature to tensors.
        """
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())

        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.subgraphIndex = 0
        signature.inputs = [tensor_map(n, t) for n, t in inputs.items()]
        signature.outputs = [tensor_map(n, t) for n, t in outputs.items()]

        model = schema.ModelT()
        model.version = 3
        model.description = self._description
        model.operatorCodes = [c for _, c in self._codes]
        model.subgraphs, model.buffers = [graph], self._buffers
        model.signatureDefs = [signature]
        return pack(model)

    def _conv_like(self, code, x, name, weight, bias, stride, same, channels, kind, options):
        n, h, w, _ = self.shape(x)
        kh, kw = weight.shape[1:3]
        if same:
            out = [n, -(-h // stride), -(-w // stride), channels]
        else:
            out = [n, (h - kh) // stride + 1, (w - kw) // stride + 1, channels]
        inputs = [x, self.constant(name + "/weight", weight), self.constant(name + "/bias", bias)]
        return self._operator(code, inputs, name, out, kind, options)

    def _operator(self, code, inputs, name, shape, kind, options):
        out = self.placeholder(name, shape)
        op = schema.OperatorT()
        op.opcodeIndex = self._code(code)
        op.inputs, op.outputs = inputs, [out]
        op.builtinOptionsType, op.builtinOptions = kind, options
        self._operators.append(op)
        return out

    def _code(self, name):
        for i, (n, _) in enumerate(self._codes):
            if n == name:
                return i
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        self._codes.append((name, code))
        return len(self._codes) - 1

    def _add_tensor(self, name, shape, dtype, buffer):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), dtype, buffer
        tensor.hasRank = True
        self._tensors.append(tensor)
        self._shapes.append(list(shape))
        return len(self._tensors) - 1


def pack(model):
    """Serialises a schema.ModelT."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


def tensor_map(name, tensor):
    """One entry of a signature."""
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry
