"""Serves an ONNX file through Triton's Python backend: all waiting requests in one run.

Not Triton's best: its ONNX Runtime backend is faster, and is not on PyPI.
"""

import json
import sys
from pathlib import Path


class TritonPythonModel:
    def initialize(self, args):
        # The backend's interpreter knows nothing of our packages, so imports wait until here.
        config = json.loads(args["model_config"])
        sys.path.insert(0, config["parameters"]["packages"]["string_value"])
        import numpy
        import onnxruntime
        import triton_python_backend_utils

        self.numpy = numpy
        self.triton = triton_python_backend_utils
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        parts = [self.triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        rows = parts[0] if len(parts) == 1 else self.numpy.concatenate(parts)
        answers = self.session.run([self.output], {self.input: rows})[0]
        responses, begin = [], 0
        for part in parts:
            end = begin + len(part)
            tensor = self.triton.Tensor(self.output, answers[begin:end])
            responses.append(self.triton.InferenceResponse(output_tensors=[tensor]))
            begin = end
        return responses
