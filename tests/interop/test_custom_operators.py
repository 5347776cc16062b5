"""Operators that ONNX Runtime does not have: a library by configuration, text in, label out."""

import os
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnxruntime_extensions
import tritonclient.grpc as grpcclient

from node import BINARY, ROOT, Node

TEXT_LABEL = ROOT / "models/testdata/text_label.onnx"
OPERATORS = onnxruntime_extensions.get_library_path()
LIBPYTHON = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
INSTALL_LIMIT_SECONDS = 300


def libpython():
    """The library whose symbols the operators need: of this Python, else of the system, else installed now."""
    own = Path(sysconfig.get_config_var("LIBDIR") or "/nowhere") / LIBPYTHON
    if own.exists():
        return str(own)
    if loads(LIBPYTHON):
        return LIBPYTHON
    package = LIBPYTHON.removesuffix(".so.1.0")
    if os.geteuid() != 0:
        raise AssertionError(f"{LIBPYTHON} is missing, and only root can install it: apt-get install {package}")
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", package]):
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_LIMIT_SECONDS)
    if not loads(LIBPYTHON):
        raise AssertionError(f"{LIBPYTHON} is missing, although {package} is installed")
    return LIBPYTHON


def loads(library):
    probe = f"import ctypes; ctypes.CDLL({library!r})"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


class CustomOperatorsTest(unittest.TestCase):
    def test_text_goes_in_and_labels_come_out(self):
        node = Node("--preload-libraries", libpython(), "--custom-op-libraries", OPERATORS)
        try:
            node.serve("junk-filter", "v1", TEXT_LABEL)
            texts = np.array([b"You won a PRIZE today", b"see you at noon", b"  prize"], dtype=object)
            with grpcclient.InferenceServerClient(node.grpc) as client:
                tensor = grpcclient.InferInput("text", texts.shape, "BYTES")
                tensor.set_data_from_numpy(texts)
                labels = client.infer("junk-filter", [tensor]).as_numpy("label")
            self.assertEqual(labels.tolist(), [b"junk", b"ham", b"junk"])
        finally:
            node.stop()

    def test_without_the_library_the_push_is_refused_with_the_reason(self):
        node = Node()
        try:
            with self.assertRaisesRegex(AssertionError, "ai.onnx.contrib:StringLower.*is not a registered function/op"):
                node.run("model", "push", "junk-filter", TEXT_LABEL)
        finally:
            node.stop()


class StartTest(unittest.TestCase):
    def start(self, *flags):
        """What a node says that cannot start."""
        with tempfile.TemporaryDirectory() as folder:
            ports = [flag for name in ("rest", "grpc", "metrics", "peer") for flag in (f"--{name}-port", "0")]
            command = [BINARY, "serve", "--data-dir", folder, *ports, *flags]
            environment = dict(os.environ)
            runtime = next(ROOT.glob(".cache/onnxruntime/*/libonnxruntime.so"), None)
            if runtime:
                environment.setdefault("ORT_DYLIB_PATH", str(runtime))
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            return done.stderr

    def test_a_library_that_is_missing_stops_the_start_with_its_path_and_the_words_of_the_loader(self):
        said = self.start("--custom-op-libraries", "/nowhere/libops.so")
        self.assertIn("the library of custom operators /nowhere/libops.so cannot be loaded:", said)
        self.assertIn("cannot open shared object file", said)
        said = self.start("--preload-libraries", "/nowhere/libfirst.so")
        self.assertIn("the library /nowhere/libfirst.so cannot be loaded:", said)
        self.assertIn("cannot open shared object file", said)

    def test_a_device_that_is_asked_for_and_absent_stops_the_start_and_names_the_library(self):
        for device, library in [("cuda:0", "libonnxruntime_providers_cuda.so"), ("tensorrt:0", "libonnxruntime_providers_tensorrt.so")]:
            said = self.start("--devices", f"{device},cpu")
            self.assertIn(f"device {device} cannot be used: {library} is not in", said)
        self.assertIn("'gpu' is no device; write cpu, cuda:NUMBER or tensorrt:NUMBER", self.start("--devices", "gpu"))


if __name__ == "__main__":
    unittest.main()
