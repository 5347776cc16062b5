"""Writes the smallest ONNX files there are: every input goes through one operator to an output of its own."""

# The types of the Open Inference Protocol, and their numbers in ONNX.
ELEMENT_TYPES = {
    "FP32": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
    "BF16": 16,
}


def identity(tensors, operator="Identity"):
    """The bytes of a model; `tensors` are (input, output, datatype, shape), where -1 is a dynamic axis."""
    graph = b""
    for input_name, output_name, _, _ in tensors:
        node = text(1, input_name) + text(2, output_name) + text(4, operator)
        graph += message(1, node)
    graph += text(2, "identity")
    for input_name, _, datatype, shape in tensors:
        graph += message(11, value(input_name, datatype, shape))
    for _, output_name, datatype, shape in tensors:
        graph += message(12, value(output_name, datatype, shape))
    opset = message(8, number(2, 17))
    return number(1, 8) + message(7, graph) + opset


def value(name, datatype, shape):
    # Axis 0 has one name everywhere, so that it is the batch axis of all inputs.
    names = ["rows"] + [f"axis_{axis}" for axis in range(1, len(shape))]
    axes = b"".join(message(1, text(2, axis) if length < 0 else number(1, length)) for axis, length in zip(names, shape))
    tensor = number(1, ELEMENT_TYPES[datatype]) + message(2, axes)
    return text(1, name) + message(2, message(1, tensor))


def varint(value):
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def text(field, value):
    return message(field, value.encode())
