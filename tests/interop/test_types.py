"""Every data type of the protocol through a model that gives back what it takes: raw and typed, binary and JSON."""

import unittest

import ml_dtypes
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.grpc import service_pb2

import onnx_file
from node import Node

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "INT8": np.array([[-128, 0, 127]], np.int8),
    "INT16": np.array([[-32768, 0, 32767]], np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**53 + 1, 2**63 - 1]], np.int64),
    "UINT8": np.array([[0, 1, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 65535]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**53 + 1, 2**64 - 1]], np.uint64),
    "FP16": np.array([[-1.5, 0, 65504]], np.float16),
    "FP32": np.array([[-1.5, 0, 3.4e38]], np.float32),
    "FP64": np.array([[-1.5, 0.1, 1.7e308]], np.float64),
    "BF16": np.array([[-1.5, 0, 3.0e38]], ml_dtypes.bfloat16),
    "BYTES": np.array([["", "ham", "grün"]], np.object_),
}
TYPED_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    for datatype in VALUES:
        model = onnx_file.identity([("x", "y", datatype, [-1, 3])])
        node.serve(datatype.lower(), "v1", model)


def text_of(array):
    return [[element.decode() if isinstance(element, bytes) else element for element in row] for row in array.tolist()]


class EveryType(unittest.TestCase):
    def setUp(self):
        self.grpc = grpcclient.InferenceServerClient(node.grpc)
        self.addCleanup(self.grpc.close)
        self.rest = httpclient.InferenceServerClient(node.rest)
        self.addCleanup(self.rest.close)

    def assertSame(self, answered, array, datatype):
        if datatype == "BYTES":
            self.assertEqual(text_of(answered), text_of(array))
        else:
            self.assertEqual(answered.dtype, array.dtype)
            np.testing.assert_array_equal(answered, array)

    def test_raw_over_grpc(self):
        for datatype, array in VALUES.items():
            with self.subTest(datatype):
                tensor = grpcclient.InferInput("x", [1, 3], datatype)
                tensor.set_data_from_numpy(array)
                result = self.grpc.infer(datatype.lower(), [tensor])
                self.assertEqual(result.get_output("y").datatype, datatype)
                self.assertSame(result.as_numpy("y"), array, datatype)

    def typed(self, datatype, field, values):
        request = service_pb2.ModelInferRequest(model_name=datatype.lower())
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 3])
        getattr(tensor.contents, field).extend(values)
        return self.grpc._client_stub.ModelInfer(request)

    def test_typed_over_grpc_is_answered_typed(self):
        for datatype, field in TYPED_FIELD.items():
            with self.subTest(datatype):
                values = VALUES[datatype][0].tolist()
                if datatype == "BYTES":
                    values = [value.encode() for value in values]
                answer = self.typed(datatype, field, values)
                self.assertEqual(len(answer.raw_output_contents), 0)
                self.assertEqual(list(getattr(answer.outputs[0].contents, field)), values)

    def test_half_floats_have_no_typed_form(self):
        for datatype in ("FP16", "BF16"):
            with self.subTest(datatype), self.assertRaises(Exception) as raised:
                self.typed(datatype, "fp32_contents", [1.0, 2.0, 3.0])
            self.assertEqual(raised.exception.code().name, "INVALID_ARGUMENT")
            self.assertIn("raw_input_contents", raised.exception.details())

    def test_binary_over_rest(self):
        for datatype, array in VALUES.items():
            with self.subTest(datatype):
                tensor = httpclient.InferInput("x", [1, 3], datatype)
                tensor.set_data_from_numpy(array, binary_data=True)
                result = self.rest.infer(datatype.lower(), [tensor])
                self.assertEqual(result.get_output("y")["datatype"], datatype)
                self.assertSame(result.as_numpy("y"), array, datatype)

    def test_json_over_rest(self):
        for datatype, array in VALUES.items():
            if datatype in ("FP16", "BF16"):
                continue
            with self.subTest(datatype):
                tensor = {"name": "x", "datatype": datatype, "shape": [1, 3], "data": text_of(array)}
                status, answer = node.infer(datatype.lower(), {"inputs": [tensor]})
                self.assertEqual(status, 200, answer)
                output = answer["outputs"][0]
                self.assertEqual((output["datatype"], output["shape"]), (datatype, [1, 3]))
                if datatype == "FP32":
                    self.assertEqual(np.array(output["data"], np.float32).tolist(), array[0].tolist())
                else:
                    self.assertEqual(output["data"], text_of(array)[0])


if __name__ == "__main__":
    unittest.main()
