"""Serves an ONNX file through Triton's Python backend: all waiting requests in one run.

Not Triton's best: its ONNX Runtime backend is faster, and is not on PyPI.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The backend's interpreter does not look where ours are.
sys.path.insert(0, (HERE / "packages").read_text())

import numpy  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = str(HERE / "model.onnx")
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        parts = [
            triton_python_backend_utils.get_input_tensor_by_name(request, self.input).as_numpy()
            for request in requests
        ]
        rows = parts[0] if len(parts) == 1 else numpy.concatenate(parts)
        answers = self.session.run([self.output], {self.input: rows})[0]
        responses, begin = [], 0
        for part in parts:
            end = begin + len(part)
            tensor = triton_python_backend_utils.Tensor(self.output, answers[begin:end])
            responses.append(triton_python_backend_utils.InferenceResponse(output_tensors=[tensor]))
            begin = end
        return responses
