"""Plain curl, as in the documentation."""

import json
import subprocess
import unittest

import onnx_file
from node import Node

TENSOR = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 4])]))


def curl(path, *options, given=None):
    """Status, headers in lower case, body."""
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--include", *options, f"http://{node.rest}{path}"]
    done = subprocess.run(command, input=given, capture_output=True, check=True)
    head, body = b"", done.stdout
    # An interim answer has a head of its own.
    while not head or head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


class Curl(unittest.TestCase):
    def assertAnswered(self, answer):
        status, headers, body = answer
        self.assertEqual((status, headers["content-type"]), (200, "application/json"), body)
        self.assertEqual(json.loads(body)["outputs"][0]["data"], [1.0, 2.0, 3.0, 4.0])

    def test_a_prediction(self):
        self.assertAnswered(curl("/v2/models/identity/infer", "-d", TENSOR))

    def test_the_answer_names_request_and_decision_in_its_headers(self):
        headers = curl("/v2/models/identity/infer", "-H", "x-request-id: abc", "-d", TENSOR)[1]
        self.assertEqual(headers["x-request-id"], "abc")
        for name in ("decision", "epoch", "version", "propensity", "sticky", "node"):
            self.assertIn(f"x-starling-{name}", headers)

    def test_a_large_body_for_which_curl_expects_100_continue(self):
        padded = TENSOR.encode() + b" " * (2 * 1024 * 1024)
        self.assertAnswered(curl("/v2/models/identity/infer", "-H", "Expect: 100-continue", "--data-binary", "@-", given=padded))

    def test_a_body_in_chunks(self):
        chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", "@-")
        self.assertAnswered(curl("/v2/models/identity/infer", *chunked, given=TENSOR.encode()))

    def test_two_requests_on_one_connection(self):
        url = f"http://{node.rest}/v2/models/identity/infer"
        wanted = ["-o", "/dev/null", url, "-o", "/dev/null", url, "-w", "%{http_code} %{num_connects}\n"]
        done = subprocess.run(["curl", "--silent", "-d", TENSOR, *wanted], capture_output=True, check=True, text=True)
        self.assertEqual(done.stdout.splitlines(), ["200 1", "200 0"])

    def test_compression_that_curl_negotiates(self):
        rows = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [256, 4], "data": [0.5] * 1024}]}
        status, headers, body = curl("/v2/models/identity/infer", "--compressed", "-d", json.dumps(rows))
        self.assertEqual((status, headers["content-encoding"]), (200, "gzip"))
        self.assertEqual(json.loads(body)["outputs"][0]["data"], [0.5] * 1024)

    def test_http_2_with_prior_knowledge(self):
        command = ["curl", "--silent", "--http2-prior-knowledge", "-d", TENSOR, "-w", " %{http_version} %{http_code}"]
        url = f"http://{node.rest}/v2/models/identity/infer"
        done = subprocess.run([*command, url], capture_output=True, check=True, text=True)
        self.assertTrue(done.stdout.endswith(" 2 200"), done.stdout)

    def test_errors_are_json(self):
        status, headers, body = curl("/v2/models/nope/infer", "-d", TENSOR)
        self.assertEqual((status, headers["content-type"]), (404, "application/json"))
        self.assertEqual(json.loads(body), {"error": "Request for unknown model: 'nope' is not found"})


if __name__ == "__main__":
    unittest.main()
