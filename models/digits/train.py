#!/usr/bin/env python3
"""Trains the two digit classifiers that the demo serves, and sets the held-back images aside.

The data are the UCI handwritten digits that scikit-learn carries: 1,797 grey
images of 8x8 pixels, values 0 to 16. Split and seeds are fixed, so a second run
on the same versions writes the same files.
"""

from pathlib import Path

import numpy as np
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
SEED = 20261124
HELD_BACK_SHARE = 0.25
# So few that version 1 is visibly weaker than version 2.
V1_TRAINING_IMAGES = 100
# ONNX operators of 2023: every ONNX Runtime since 1.16 reads them.
OPSET = {"": 19, "ai.onnx.ml": 3}
INPUT = [("pixels", FloatTensorType([None, 64]))]


def main() -> None:
    digits = load_digits()
    images = digits.data.astype(np.float32)
    train_x, held_x, train_y, held_y = train_test_split(
        images, digits.target, test_size=HELD_BACK_SHARE, random_state=SEED, stratify=digits.target
    )

    # Version 1 is exported as skl2onnx does by default: its last operator,
    # ZipMap, answers a sequence of maps, which a server has to turn into a tensor.
    v1 = LogisticRegression(max_iter=2_000, random_state=SEED)
    v1.fit(train_x[:V1_TRAINING_IMAGES], train_y[:V1_TRAINING_IMAGES])
    write("digits-v1.onnx", to_onnx(v1, initial_types=INPUT, target_opset=OPSET))

    v2 = MLPClassifier(hidden_layer_sizes=(64, 64), alpha=0.1, max_iter=600, random_state=SEED)
    v2.fit(train_x, train_y)
    plain = to_onnx(v2, initial_types=INPUT, target_opset=OPSET, options={"zipmap": False})
    write("digits-v2.onnx", with_output_names(plain, ["output_label", "output_probability"]))

    records = np.hstack([held_x.astype(np.uint8), held_y.astype(np.uint8).reshape(-1, 1)])
    (HERE / "held_back.bin").write_bytes(records.tobytes())

    for name, model in (("v1", v1), ("v2", v2)):
        print(f"{name}: {model.score(held_x, held_y):.4f} of {len(held_y)} held-back images")


def with_output_names(model: ModelProto, names: list[str]) -> ModelProto:
    """Gives version 2 the output names of version 1, so that a client reads both alike."""
    renamed = {output.name: name for output, name in zip(model.graph.output, names, strict=True)}
    for node in model.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = renamed[output.name]
    return model


def write(name: str, model: ModelProto) -> None:
    (HERE / name).write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
