#!/usr/bin/env python3
"""Makes versions of the digit classifier that are bad in one way each, for rollouts to find out.

    make models

All three come from `digits-v2.onnx`, have its inputs and outputs, and pass every
check before traffic: what is wrong with them shows on images only, not on the
zeroes that a server warms a session up with.

- `digits-broken.onnx` fails every image.
- `digits-slow.onnx` answers as version 2 does, some milliseconds later.
- `digits-wrong.onnx` says the next digit.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = Path(__file__).resolve().parent
# Turns of a loop per shade of the brightest pixel, of which an image has 16.
TURNS_PER_SHADE = 100


def main() -> None:
    for name, spoil in (("broken", broken), ("slow", slow), ("wrong", wrong)):
        model = onnx.load(HERE / "digits-v2.onnx")
        spoil(model.graph)
        onnx.checker.check_model(model)
        (HERE / f"digits-{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def constant(graph, name, value):
    graph.initializer.append(numpy_helper.from_array(value, name))


def instead_of_input(graph, nodes, name):
    """Lets the model read `name`, which `nodes` make of its input."""
    for node in graph.node:
        node.input[:] = [name if read == "pixels" else read for read in node.input]
    whole = list(nodes) + list(graph.node)
    del graph.node[:]
    graph.node.extend(whole)


def brightest():
    return [
        helper.make_node("ReduceMax", ["pixels"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["shade"], to=T.INT64),
    ]


def broken(graph) -> None:
    """Looks the brightest shade up in a table that knows black only."""
    constant(graph, "shades", np.zeros(1, dtype=np.float32))
    nodes = brightest() + [
        helper.make_node("Gather", ["shades", "shade"], ["offset"]),
        helper.make_node("Add", ["pixels", "offset"], ["shaded"]),
    ]
    instead_of_input(graph, nodes, "shaded")


def slow(graph) -> None:
    """Multiplies a matrix as often as the image is bright, and adds nothing."""
    value = lambda name: helper.make_tensor_value_info(name, T.FLOAT, [64, 64])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["value_in", "halves"], ["value_out"]),
            helper.make_node("Identity", ["going_in"], ["going_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", T.INT64, []),
            helper.make_tensor_value_info("going_in", T.BOOL, []),
            value("value_in"),
        ],
        [helper.make_tensor_value_info("going_out", T.BOOL, []), value("value_out")],
    )
    constant(graph, "halves", np.eye(64, dtype=np.float32) * 0.5)
    constant(graph, "always", np.array(True))
    constant(graph, "turns_per_shade", np.array(TURNS_PER_SHADE, dtype=np.int64))
    constant(graph, "nothing", np.array(0, dtype=np.float32))
    nodes = brightest() + [
        helper.make_node("Mul", ["shade", "turns_per_shade"], ["turns"]),
        helper.make_node("Loop", ["turns", "always", "halves"], ["turned"], body=body),
        helper.make_node("ReduceSum", ["turned"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["delay"]),
        helper.make_node("Add", ["pixels", "delay"], ["delayed"]),
    ]
    instead_of_input(graph, nodes, "delayed")


def wrong(graph) -> None:
    """One digit too many, and the probabilities to go with it."""
    constant(graph, "one", np.array(1, dtype=np.int64))
    constant(graph, "ten", np.array(10, dtype=np.int64))
    constant(graph, "shifted_columns", np.roll(np.arange(10, dtype=np.int64), 1))
    for node in graph.node:
        node.output[:] = [f"right_{name}" if name.startswith("output_") else name for name in node.output]
        node.input[:] = [f"right_{name}" if name.startswith("output_") else name for name in node.input]
    graph.node.extend(
        [
            helper.make_node("Add", ["right_output_label", "one"], ["next_label"]),
            helper.make_node("Mod", ["next_label", "ten"], ["output_label"]),
            helper.make_node(
                "Gather", ["right_output_probability", "shifted_columns"], ["output_probability"], axis=1
            ),
        ]
    )


if __name__ == "__main__":
    main()
