"""One real `starling` process for the tests: started, given models, asked, watched, and stopped."""

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("STARLING_BIN", ROOT / "target/debug/starling"))
MODELS = ROOT / "models/digits"
# What `make` has fetched, unless something else is named.
FETCHED_RUNTIME = next(ROOT.glob(".cache/onnxruntime/*/libonnxruntime.so"), None)
START_LIMIT_SECONDS = 60
COMMAND_LIMIT_SECONDS = 60


class Node:
    """A node of its own cluster on ports that the system gave; further flags of `starling serve` may follow."""

    def __init__(self, *flags):
        self._folder = tempfile.TemporaryDirectory(prefix="starling-interop-")
        folder = Path(self._folder.name)
        self._log = open(folder / "node.log", "wb")
        ready_file = folder / "ready.json"
        ports = [flag for name in ("rest", "grpc", "metrics", "peer") for flag in (f"--{name}-port", "0")]
        command = [BINARY, "serve", "--data-dir", folder / "data", "--ready-file", ready_file, *ports, *flags]
        environment = dict(os.environ)
        if FETCHED_RUNTIME:
            environment.setdefault("ORT_DYLIB_PATH", str(FETCHED_RUNTIME))
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        try:
            addresses = self._wait_until_ready(ready_file)
        except BaseException:
            self.stop()
            raise
        self.rest = addresses["rest"]
        self.grpc = addresses["grpc"]
        self.metrics = addresses["metrics"]

    def _wait_until_ready(self, ready_file):
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"starling ended with {self._process.returncode}:\n{self.log()}")
            if ready_file.exists():
                addresses = json.loads(ready_file.read_text())
                if addresses["ready"]:
                    return addresses
            time.sleep(0.02)
        raise AssertionError(f"starling was not ready in time:\n{self.log()}")

    def run(self, *arguments):
        """Runs a command of the CLI against this node; returns what it prints."""
        command = [str(BINARY), "--server", self.grpc, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_LIMIT_SECONDS)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}\n{self.log()}")
        return done.stdout

    def serve(self, model, label, file, *settings):
        """Pushes a version (a path, or the bytes of a model) and routes to it as soon as it is ready."""
        if isinstance(file, bytes):
            written = Path(self._folder.name) / f"{model}.onnx"
            written.write_bytes(file)
            file = written
        self.run("model", "push", model, file, "--label", label, *settings)
        self.wait_until_ready(model, label)
        self.run("route", "set", model, f"{label}=100")

    def wait_until_ready(self, model, label):
        deadline = time.monotonic() + COMMAND_LIMIT_SECONDS
        while True:
            versions = self.run("get", "versions", model, "-o", "json")
            version = next((v for v in listed(json.loads(versions)) if v["label"] == label), None)
            if version and version["phase"].lower() == "ready":
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{model} {label} is not ready: {versions}\n{self.log()}")
            time.sleep(0.05)

    def ask(self, method, path, body=None, headers=None, port="rest", timeout=60):
        """One HTTP/1.1 request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection(getattr(self, port), timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def infer(self, model, request, headers=None):
        """A JSON prediction: status and the decoded answer."""
        status, _, body = self.ask("POST", f"/v2/models/{model}/infer", json.dumps(request).encode(), headers)
        return status, json.loads(body)

    def connect(self, port="rest", timeout=60):
        """A bare connection."""
        host, number = getattr(self, port).rsplit(":", 1)
        return socket.create_connection((host, int(number)), timeout=timeout)

    def metric(self, name):
        """The value of one line of /metrics, named with its labels; None if it is not there."""
        _, _, text = self.ask("GET", "/metrics", port="metrics")
        for line in text.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return None

    def resident_bytes(self):
        """What the process has in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def is_running(self):
        return self._process.poll() is None

    def log(self):
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")[-4000:]

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()


def listed(answer):
    """A list that may stand under a name."""
    if isinstance(answer, list):
        return answer
    return next(value for value in answer.values() if isinstance(value, list))


def eventually(what, condition, limit_seconds=30):
    """Waits until a condition holds, and gives what it gave then."""
    deadline = time.monotonic() + limit_seconds
    while not (held := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_seconds} s: {what}")
        time.sleep(0.02)
    return held
