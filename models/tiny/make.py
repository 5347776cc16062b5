#!/usr/bin/env python3
"""Writes tiny.onnx, the model that `make bench` serves: so small that what is measured is the server.

`y = x W + b` with x FP32 [-1,64] and y FP32 [-1,8]; the weights come from a fixed seed.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

COLUMNS_IN, COLUMNS_OUT = 64, 8


def main() -> None:
    random = np.random.default_rng(20261124)
    weights = random.standard_normal((COLUMNS_IN, COLUMNS_OUT)).astype(np.float32)
    bias = random.standard_normal(COLUMNS_OUT).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["xW"]), helper.make_node("Add", ["xW", "b"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, COLUMNS_IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, COLUMNS_OUT])],
        [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    checker.check_model(model)
    Path(__file__).resolve().with_name("tiny.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
