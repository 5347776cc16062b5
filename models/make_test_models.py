"""Makes the small ONNX files under testdata/ that the tests of inference load.

    pip install onnx scikit-learn skl2onnx
    python3 models/make_test_models.py

The files are committed, so the tests need neither Python nor these packages.
Weights are fixed numbers, not random ones: a second run changes nothing that
matters (skl2onnx does not keep the order of attributes).
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

TESTDATA = Path(__file__).parent / "testdata"
OPSET = 17
IR_VERSION = 8


def tensor(name, element_type, shape):
    return helper.make_tensor_value_info(name, element_type, shape)


def save(name, nodes, inputs, outputs, initializers=(), opsets=(("", OPSET),), ir_version=IR_VERSION):
    graph = helper.make_graph(list(nodes), name, inputs, outputs, list(initializers))
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets],
        producer_name="make_test_models",
    )
    model.ir_version = ir_version
    file = TESTDATA / f"{name}.onnx"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(model.SerializeToString())


def identity(name, element_type, shape):
    node = helper.make_node("Identity", ["x"], ["y"])
    save(name, [node], [tensor("x", element_type, shape)], [tensor("y", element_type, shape)])


def matmul():
    """64 -> 8, each output column j is the sum of x times (j + 1) / 64."""
    weights = np.tile((np.arange(8, dtype=np.float32) + 1) / 64, (64, 1))
    save(
        "matmul",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 64])],
        [tensor("y", T.FLOAT, ["batch", 8])],
        [helper.make_tensor("w", T.FLOAT, weights.shape, weights.flatten())],
    )


def mixed_inputs():
    """Four inputs of four types; each has its own output."""
    kinds = [("flag", T.BOOL), ("count", T.INT32), ("code", T.UINT8), ("weight", T.DOUBLE)]
    save(
        "mixed_inputs",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in kinds],
        [tensor(name, kind, ["batch", 2]) for name, kind in kinds],
        [tensor(f"{name}_out", kind, ["batch", 2]) for name, kind in kinds],
    )


def mean_over_rows():
    """Gives one number for the whole batch: must never be concatenated."""
    save(
        "mean_over_rows",
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        [tensor("x", T.FLOAT, ["batch", 4])],
        [tensor("y", T.FLOAT, [1, 4])],
    )


def running_sum():
    """Keeps the number of rows, yet every row depends on those before it."""
    save(
        "running_sum",
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 4])],
        [tensor("y", T.FLOAT, ["batch", 4])],
        [helper.make_tensor("axis", T.INT64, [], [0])],
    )


def lookup():
    """Looks row numbers up in a table of 4: an index outside it fails the run."""
    save(
        "lookup",
        [helper.make_node("Gather", ["table", "index"], ["y"], axis=0)],
        [tensor("index", T.INT64, ["batch"])],
        [tensor("y", T.FLOAT, ["batch", 2])],
        [helper.make_tensor("table", T.FLOAT, [4, 2], [0, 1, 10, 11, 20, 21, 30, 31])],
    )


def slow_loop():
    """Multiplies a matrix `trips` times: takes as long as it is asked to."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["value_in", "m"], ["product"]),
            helper.make_node("Tanh", ["product"], ["value_out"]),
            helper.make_node("Identity", ["condition_in"], ["condition_out"]),
        ],
        "body",
        [tensor("trip", T.INT64, []), tensor("condition_in", T.BOOL, []), tensor("value_in", T.FLOAT, [16, 16])],
        [tensor("condition_out", T.BOOL, []), tensor("value_out", T.FLOAT, [16, 16])],
    )
    matrix = np.eye(16, dtype=np.float32) * 0.5
    save(
        "slow_loop",
        [
            helper.make_node("ReduceMax", ["trips"], ["trip_count"], keepdims=0),
            helper.make_node("Loop", ["trip_count", "always", "m"], ["final"], body=body),
            helper.make_node("ReduceSum", ["final"], ["total"], keepdims=0),
            helper.make_node("Cast", ["trips"], ["trips_float"], to=T.FLOAT),
            helper.make_node("Add", ["trips_float", "total"], ["y"]),
        ],
        [tensor("trips", T.INT64, ["batch", 1])],
        [tensor("y", T.FLOAT, ["batch", 1])],
        [
            helper.make_tensor("always", T.BOOL, [], [True]),
            helper.make_tensor("m", T.FLOAT, matrix.shape, matrix.flatten()),
        ],
    )


def unknown_operator():
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="example.nowhere")
    save(
        "unknown_operator",
        [node],
        [tensor("x", T.FLOAT, ["batch", 1])],
        [tensor("y", T.FLOAT, ["batch", 1])],
        opsets=(("", OPSET), ("example.nowhere", 1)),
    )


def sequence_input():
    node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
    sequence = helper.make_tensor_sequence_value_info("x", T.FLOAT, ["n", 2])
    save("sequence_input", [node], [sequence], [tensor("y", T.FLOAT, ["n", 2])])


def optional_input():
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(T.FLOAT, ["n", 2]))
    save(
        "optional_input",
        [helper.make_node("OptionalGetElement", ["x"], ["y"])],
        [helper.make_value_info("x", optional)],
        [tensor("y", T.FLOAT, ["n", 2])],
    )


def all_types():
    """One input and one output of every type that the protocol has."""
    kinds = [
        ("bool", T.BOOL),
        ("uint8", T.UINT8),
        ("uint16", T.UINT16),
        ("uint32", T.UINT32),
        ("uint64", T.UINT64),
        ("int8", T.INT8),
        ("int16", T.INT16),
        ("int32", T.INT32),
        ("int64", T.INT64),
        ("fp16", T.FLOAT16),
        ("bf16", T.BFLOAT16),
        ("fp32", T.FLOAT),
        ("fp64", T.DOUBLE),
        ("bytes", T.STRING),
    ]
    save(
        "all_types",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in kinds],
        [tensor(name, kind, ["batch", 2]) for name, kind in kinds],
        [tensor(f"{name}_out", kind, ["batch", 2]) for name, kind in kinds],
    )


def scalar():
    """No axes at all: twice a number, and its sign."""
    save(
        "scalar",
        [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Less", ["x", "zero"], ["negative"]),
        ],
        [tensor("x", T.FLOAT, [])],
        [tensor("twice", T.FLOAT, []), tensor("negative", T.BOOL, [])],
        [helper.make_tensor("zero", T.FLOAT, [], [0.0])],
    )


def default_input():
    """x times a factor that is 3 unless the request says otherwise."""
    save(
        "default_input",
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 2]), tensor("factor", T.FLOAT, [1])],
        [tensor("y", T.FLOAT, ["batch", 2])],
        [helper.make_tensor("factor", T.FLOAT, [1], [3.0])],
    )


def sequence_output(name, lengths):
    """Cuts 4 rows into pieces of the given lengths."""
    save(
        name,
        [helper.make_node("SplitToSequence", ["x", "lengths"], ["y"], axis=0)],
        [tensor("x", T.FLOAT, [4, 2])],
        [helper.make_tensor_sequence_value_info("y", T.FLOAT, None)],
        [helper.make_tensor("lengths", T.INT64, [len(lengths)], lengths)],
    )


def nonzero():
    """Indices of what is not zero: nobody knows how many before the run."""
    save(
        "nonzero",
        [helper.make_node("NonZero", ["x"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 3])],
        [tensor("y", T.INT64, [2, "found"])],
    )


def no_inputs():
    save(
        "no_inputs",
        [helper.make_node("Identity", ["constant"], ["y"])],
        [],
        [tensor("y", T.INT64, [3])],
        [helper.make_tensor("constant", T.INT64, [3], [5, 7, 11])],
    )


def future_opset():
    """Written for an opset that no runtime has yet."""
    save(
        "future_opset",
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 1])],
        [tensor("y", T.FLOAT, ["batch", 1])],
        opsets=(("", 9_999),),
    )


def stored_at(location, name="w"):
    """An initializer of 2 x 2 floats whose data lies in another file."""
    weights = T(name=name, data_type=T.FLOAT, dims=[2, 2], data_location=T.EXTERNAL)
    for key, value in [("location", location), ("offset", "0"), ("length", "16")]:
        weights.external_data.add(key=key, value=value)
    return weights


def external_data(name, location):
    """x times a matrix that lies in another file."""
    save(
        name,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 2])],
        [tensor("y", T.FLOAT, ["batch", 2])],
        [stored_at(location)],
    )


def external_data_in_a_branch():
    """The reference stands in a constant within a branch of an If."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["inner"], value=stored_at("/etc/passwd", "hidden"))],
        "branch",
        [],
        [tensor("inner", T.FLOAT, [2, 2])],
    )
    save(
        "external_in_branch",
        [helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)],
        [tensor("condition", T.BOOL, [])],
        [tensor("y", T.FLOAT, [2, 2])],
    )


def text_label():
    """Junk is a text with the word "prize" in it: a tokenizer of onnxruntime-extensions, then plain operators."""
    contrib = "ai.onnx.contrib"
    save(
        "text_label",
        [
            helper.make_node("StringLower", ["text"], ["lower"], domain=contrib),
            helper.make_node("StringSplit", ["lower", "space", "skip"], ["places", "words", "size"], domain=contrib),
            helper.make_node("StringEqual", ["words", "prize"], ["hit"], domain=contrib),
            helper.make_node("Cast", ["hit"], ["hits"], to=T.INT64),
            helper.make_node("Gather", ["places", "zero"], ["rows"], axis=1),
            helper.make_node("Shape", ["text"], ["batch"]),
            helper.make_node("ConstantOfShape", ["batch"], ["none"], value=helper.make_tensor("", T.INT64, [1], [0])),
            helper.make_node("ScatterElements", ["none", "rows", "hits"], ["score"], reduction="add"),
            helper.make_node("Greater", ["score", "zero"], ["junk"]),
            helper.make_node("Cast", ["junk"], ["choice"], to=T.INT64),
            helper.make_node("Gather", ["labels", "choice"], ["label"], axis=0),
        ],
        [tensor("text", T.STRING, ["batch"])],
        [tensor("label", T.STRING, ["batch"])],
        [
            helper.make_tensor("space", T.STRING, [1], [b" "]),
            helper.make_tensor("skip", T.BOOL, [1], [True]),
            helper.make_tensor("prize", T.STRING, [1], [b"prize"]),
            helper.make_tensor("zero", T.INT64, [], [0]),
            helper.make_tensor("labels", T.STRING, [2], [b"ham", b"junk"]),
        ],
        opsets=(("", OPSET), (contrib, 1)),
    )


def classifier(name, labels):
    """Logistic regression on three separate clouds, exported as skl2onnx does by
    default: a label, and a sequence of maps made by ZipMap."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    points = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [0, 10], [1, 10]], dtype=np.float32)
    model = LogisticRegression().fit(points, np.repeat(np.array(labels), 2))
    exported = convert_sklearn(
        model, name=name, initial_types=[("X", FloatTensorType([None, 2]))], target_opset=OPSET
    )
    (TESTDATA / f"{name}.onnx").write_bytes(exported.SerializeToString())


def main():
    TESTDATA.mkdir(exist_ok=True)
    identity("identity_fp32", T.FLOAT, ["batch", 4])
    identity("identity_int64", T.INT64, ["batch", 2])
    identity("identity_fp16", T.FLOAT16, ["batch", 2])
    identity("identity_bytes", T.STRING, ["batch", 1])
    identity("identity_any_width", T.FLOAT, ["batch", "width"])
    identity("fixed_batch", T.FLOAT, [2, 3])
    matmul()
    mixed_inputs()
    mean_over_rows()
    running_sum()
    lookup()
    slow_loop()
    unknown_operator()
    sequence_input()
    optional_input()
    all_types()
    scalar()
    default_input()
    sequence_output("sequence_even", [2, 2])
    sequence_output("sequence_ragged", [1, 3])
    nonzero()
    no_inputs()
    future_opset()
    external_data("external/model", "weights/w.bin")
    (TESTDATA / "external/weights").mkdir(exist_ok=True)
    (TESTDATA / "external/weights/w.bin").write_bytes(np.array([[1, 2], [3, 4]], dtype="<f4").tobytes())
    external_data("external_parent", "../../etc/passwd")
    external_data("external_absolute", "/etc/passwd")
    external_data_in_a_branch()
    text_label()
    classifier("classifier_int64", [3, 5, 8])
    classifier("classifier_text", ["ham", "junk", "spam"])
    whole = (TESTDATA / "matmul.onnx").read_bytes()
    (TESTDATA / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (TESTDATA / "not_onnx.onnx").write_bytes(b"this is a text file, not a model\n")


if __name__ == "__main__":
    main()
