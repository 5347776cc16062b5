"""Models of every shape: what Starling answers is what ONNX Runtime itself answers."""

import concurrent.futures
import io
import json
import tarfile
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnxruntime
import tritonclient.grpc as grpcclient
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from node import ROOT, Node

TESTDATA = ROOT / "models/testdata"
RANDOM = np.random.default_rng(5)
# Between runs of other batches; at one batch composition every bit is equal.
RELATIVE = 1e-5


def floats(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def words(*shape):
    return RANDOM.choice(np.array([b"ham", b"", b"a\0b", "ü".encode()], dtype=object), size=shape)


# What each model is asked: inputs by name. Models whose inputs NumPy has no type for are tested in Rust.
QUESTIONS = {
    "identity_fp32": {"x": floats(3, 4)},
    "identity_int64": {"x": RANDOM.integers(-(2**62), 2**62, (3, 2))},
    "identity_fp16": {"x": floats(3, 2).astype(np.float16)},
    "identity_any_width": {"x": floats(2, 7)},
    "fixed_batch": {"x": floats(2, 3)},
    "matmul": {"x": floats(5, 64)},
    "mixed_inputs": {
        "flag": np.array([[True, False]]),
        "count": np.array([[-1, 7]], dtype=np.int32),
        "code": np.array([[0, 255]], dtype=np.uint8),
        "weight": RANDOM.normal(size=(1, 2)),
    },
    "mean_over_rows": {"x": floats(6, 4)},
    "running_sum": {"x": floats(6, 4)},
    "lookup": {"index": np.array([3, 0, 1])},
    "slow_loop": {"trips": np.array([[3], [5]])},
    "scalar": {"x": np.array(2.5, dtype=np.float32)},
    "default_input": {"x": floats(2, 2)},
    "sequence_even": {"x": floats(4, 2)},
    "nonzero": {"x": np.array([[0, 1, 2], [3, 0, 0]], dtype=np.float32)},
    "classifier_int64": {"X": floats(4, 2)},
    "classifier_text": {"X": floats(4, 2)},
    "external": {"x": floats(3, 2)},
}


def file_of(model):
    return TESTDATA / "external" if model == "external" else TESTDATA / f"{model}.onnx"


def onnx_of(path):
    return path / "model.onnx" if path.is_dir() else path


class Oracle:
    """ONNX Runtime in this process, as Starling sets its sessions up: one thread."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(onnx_of(path)), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run(self, inputs):
        return dict(zip(self.outputs, map(as_tensor, self.session.run(None, inputs))))


def as_tensor(output):
    """Sequences as Starling converts them: maps to a matrix by class, tensors stacked."""
    if not isinstance(output, list):
        return np.asarray(output)
    if output and isinstance(output[0], dict):
        return np.array([[row[label] for label in sorted(row)] for row in output], dtype=np.float32)
    return np.stack(output)


DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}


def ask(client, model, inputs):
    tensors = []
    for name, values in inputs.items():
        tensor = grpcclient.InferInput(name, values.shape, DATATYPES[values.dtype.name])
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    return client.infer(model, tensors)


def answered(answer):
    names = [output.name for output in answer.get_response().outputs]
    return {name: answer.as_numpy(name) for name in names}


def text_of(values):
    """BYTES come as bytes from the one and as str from the other."""
    decode = np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else str(value), otypes=[object])
    return decode(values) if values.size else values


class ModelsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.client = grpcclient.InferenceServerClient(cls.node.grpc)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.node.stop()

    def assert_same(self, got, expected, what):
        self.assertEqual(list(got), list(expected), what)
        for name, values in expected.items():
            have = got[name]
            self.assertEqual(have.shape, values.shape, f"{what}: {name}")
            if have.dtype == object or values.dtype.kind in "OSU":
                self.assertTrue(np.array_equal(text_of(have), text_of(values)), f"{what}: {name}: {have} {values}")
            else:
                self.assertEqual(have.dtype, values.dtype, f"{what}: {name}")
                self.assertEqual(have.tobytes(), values.tobytes(), f"{what}: {name}: {have} {values}")

    def test_the_runtime_is_the_same_one(self):
        library = Path(onnxruntime.__file__).parent
        self.assertTrue(any(library.glob("capi/*.so*")))
        requirements = (ROOT / "tests/interop/requirements.txt").read_text()
        self.assertIn(f"onnxruntime=={onnxruntime.__version__}\n", requirements)
        self.assertIn(f"version={onnxruntime.__version__}\n", (ROOT / "deploy/fetch-onnxruntime.sh").read_text())

    def test_every_test_model_gives_every_bit_of_what_the_runtime_gives(self):
        for model, inputs in QUESTIONS.items():
            with self.subTest(model):
                self.node.serve(model, "v1", file_of(model))
                expected = Oracle(file_of(model)).run(inputs)
                self.assert_same(answered(ask(self.client, model, inputs)), expected, model)

    def test_defaults_of_scikit_learn_give_every_bit_of_what_the_runtime_gives(self):
        X, y = load_iris(return_X_y=True)
        X = X.astype(np.float32)
        names = np.array(["setosa", "versicolor", "virginica"])[y]
        mixed = ColumnTransformer([("kind", OneHotEncoder(handle_unknown="ignore"), [0]), ("rest", "passthrough", [1, 2, 3])])
        estimators = {
            "logistic": LogisticRegression(max_iter=1000).fit(X, names),
            "boosting": GradientBoostingClassifier(n_estimators=10).fit(X, y),
            "forest": RandomForestRegressor(n_estimators=10).fit(X, y),
            "scaled-svc": make_pipeline(StandardScaler(), SVC()).fit(X, y),
            "perceptron": MLPClassifier(max_iter=3000).fit(X, names),
            "bayes": GaussianNB().fit(X, y),
            "columns": make_pipeline(mixed, LogisticRegression(max_iter=1000)).fit(np.round(X), y),
        }
        with tempfile.TemporaryDirectory() as folder:
            for model, estimator in estimators.items():
                with self.subTest(model):
                    path = Path(folder) / f"{model}.onnx"
                    path.write_bytes(to_onnx(estimator, X[:1]).SerializeToString())
                    self.node.serve(model, "v1", path)
                    inputs = {"X": np.round(X[::10]) if model == "columns" else X[::10]}
                    answer = ask(self.client, model, inputs)
                    self.assert_same(answered(answer), Oracle(path).run(inputs), model)

    def test_the_classes_of_probabilities_are_named(self):
        self.node.serve("named-classes", "v1", TESTDATA / "classifier_text.onnx")
        answer = ask(self.client, "named-classes", {"X": floats(2, 2)})
        parameters = answer.get_output("output_probability").parameters
        self.assertEqual(json.loads(parameters["classes"].string_param), ["ham", "junk", "spam"])

    def test_rows_that_ran_with_others_are_as_if_alone(self):
        self.node.serve("crowded", "v1", TESTDATA / "matmul.onnx")
        oracle = Oracle(TESTDATA / "matmul.onnx")
        questions = [{"x": floats(1, 64)} for _ in range(64)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda inputs: ask(self.client, "crowded", inputs), questions))
        for inputs, answer in zip(questions, answers):
            np.testing.assert_allclose(answer.as_numpy("y"), oracle.run(inputs)["y"], rtol=RELATIVE, atol=1e-6)

    def refused(self, *arguments):
        with self.assertRaises(AssertionError) as caught:
            self.node.run(*arguments)
        return str(caught.exception)

    def test_what_cannot_be_served_is_refused_at_push_with_the_reason(self):
        for model, reason in [
            ("sequence_input", "which cannot be served: inputs must be tensors"),
            ("optional_input", "which cannot be served: inputs must be tensors"),
            ("future_opset", "Opset 9999 is under development"),
            ("unknown_operator", "example.nowhere:Frobnicate(-1) is not a registered function/op"),
            ("external_parent", "'../../etc/passwd', which leaves its folder by '..'"),
            ("external_absolute", "'/etc/passwd', which is an absolute path"),
        ]:
            with self.subTest(model):
                self.assertIn(reason, self.refused("model", "push", "refused", TESTDATA / f"{model}.onnx"))

    def test_the_node_refuses_a_bundle_that_leads_out_whoever_made_it(self):
        def bundle(*members):
            with tarfile.open(path, "w") as tar:
                for name, content in members:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

        def linked(name, target):
            with tarfile.open(path, "w") as tar:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "evil.tar"
            bundle(("../../evil", b"x"))
            self.assertIn("it leaves its folder by '..'", self.refused("model", "push", "evil", path))
            bundle(("/tmp/evil", b"x"))
            self.assertIn("it is an absolute path", self.refused("model", "push", "evil", path))
            linked("weights/w.bin", "/etc/passwd")
            self.assertIn("it is a link", self.refused("model", "push", "evil", path))
            bundle(("model.onnx", (TESTDATA / "external_absolute.onnx").read_bytes()))
            self.assertIn("'/etc/passwd', which is an absolute path", self.refused("model", "push", "evil", path))
            bundle(("README", b"no model here"))
            self.assertIn("the folder has no model.onnx", self.refused("model", "push", "evil", path))

    def test_a_golden_sample_is_recorded_and_held_against_the_next_version(self):
        matmul = TESTDATA / "matmul.onnx"
        self.node.serve("golden", "v1", matmul)
        with tempfile.TemporaryDirectory() as folder:
            question, sample = Path(folder) / "question.json", Path(folder) / "ones.json"
            question.write_text(json.dumps({"x": [[1.0] * 64]}))
            sample.write_text(self.node.run("model", "golden", "golden", "--input", question))
            self.node.run("model", "push", "golden", matmul, "--label", "v2", "--golden", sample)
            self.node.wait_until_ready("golden", "v2")

            document = json.loads(sample.read_text())
            document["response"]["outputs"][0]["data"][0][2] += 0.5
            sample.write_text(json.dumps(document))
            refusal = self.refused("model", "push", "golden", matmul, "--label", "v3", "--golden", sample)
            self.assertIn(
                "golden sample 'ones.json' is not reproduced: output 'y' differs in 1 of 8 elements, "
                "most at [0, 2]: expected 3.5, got 3,",
                refusal,
            )
            manifest = Path(folder) / "golden.yaml"
            manifest.write_text(
                "apiVersion: starling/v1\nkind: Model\nmetadata: { name: golden-manifest }\nspec:\n  versions:\n"
                f"    v1: {{ artefact: {matmul}, golden: [ones.json] }}\n"
            )
            self.assertIn("is not reproduced", self.refused("apply", "-f", manifest))


if __name__ == "__main__":
    unittest.main()
