#!/usr/bin/env python3
"""Writes trees.onnx, a gradient boosting that `make bench` serves: 30 columns, 100 trees.

The data are the breast-cancer measurements that scikit-learn carries; the seed is
fixed, so a second run on the same versions writes the same file.
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier

SEED = 20261124
# ONNX operators of 2023: every ONNX Runtime since 1.16 reads them.
OPSET = {"": 19, "ai.onnx.ml": 3}


def main() -> None:
    data = load_breast_cancer()
    model = GradientBoostingClassifier(n_estimators=100, max_depth=4, random_state=SEED)
    model.fit(data.data.astype(np.float32), data.target)
    columns = data.data.shape[1]
    onnx = to_onnx(
        model,
        initial_types=[("x", FloatTensorType([None, columns]))],
        target_opset=OPSET,
        options={"zipmap": False},
    )
    Path(__file__).resolve().with_name("trees.onnx").write_bytes(onnx.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
