"""Plain predictions over REST take a short way through the server. `Content-Encoding: identity`, which says nothing,
makes the same request take the ordinary one. Both answer alike, byte by byte."""

import json
import re
import struct
import unittest

import onnx_file
from node import Node

INFER = "/v2/models/identity/infer"
VERSION = "/v2/models/identity/versions/v1/infer"
LENGTH = "Inference-Header-Content-Length"
FOUR = struct.pack("<4f", 1, 2, 3, 4)
# New in every answer.
NEW = {"date", "x-request-id", "x-starling-decision"}


def setUpModule():
    global node
    node = Node("--max-request-bytes", "100000")
    unittest.addModuleCleanup(node.stop)
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 4])]))
    node.serve("half", "v1", onnx_file.identity([("x", "y", "FP16", [-1])]))


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **changes}


def plain(**changes):
    return json.dumps({"inputs": [tensor()], **changes}).encode()


def binary(contents=FOUR, shape=(1, 4), size=None, **changes):
    """Headers and body of a request with a binary tensor."""
    size = len(contents) if size is None else size
    described = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [described], **changes}).encode()
    return {LENGTH: str(len(head))}, head + contents


def both(path, body, headers=None, quiet=True):
    """The answers of the short way and of the ordinary one: status, headers, body."""
    headers = dict(headers or {}, **({"x-starling-quiet": "true"} if quiet else {}))
    return [
        node.ask("POST", path, body, {**headers, **way})
        for way in ({"X-Request-Id": "short"}, {"X-Request-Id": "ordinary", "Content-Encoding": "identity"})
    ]


def lasting(headers, but=()):
    return sorted((name.lower(), value) for name, value in headers.items() if name.lower() not in NEW | set(but))


class BothWays(unittest.TestCase):
    def answered(self, status, path, body, headers=None):
        """The body of both, which are alike and have this status."""
        short, ordinary = both(path, body, headers)
        self.assertEqual((short[0], short[2]), (ordinary[0], ordinary[2]))
        self.assertEqual(lasting(short[1]), lasting(ordinary[1]))
        self.assertEqual((short[1]["x-request-id"], ordinary[1]["x-request-id"]), ("short", "ordinary"))
        self.assertEqual(short[0], status, short[2])
        return short[2]

    def test_json(self):
        for path in (INFER, VERSION):
            answer = json.loads(self.answered(200, path, plain(id="42", parameters={"own": 1})))
            self.assertEqual(answer["outputs"][0]["data"], [1.0, 2.0, 3.0, 4.0])
            self.assertEqual((answer["id"], answer["model_version"]), ("42", "1"))

    def test_binary_there_and_back(self):
        headers, body = binary(parameters={"binary_data_output": True})
        self.assertTrue(self.answered(200, INFER, body, headers).endswith(FOUR))
        headers, body = binary(outputs=[{"name": "y", "parameters": {"binary_data": True}}])
        self.assertTrue(self.answered(200, VERSION, body, headers).endswith(FOUR))
        headers, body = binary(outputs=[{"name": "y", "parameters": {"binary_data": False}}])
        self.assertEqual(json.loads(self.answered(200, INFER, body, headers))["outputs"][0]["data"], [1.0, 2.0, 3.0, 4.0])

    def test_the_bytes_of_a_tensor_alone(self):
        self.assertTrue(self.answered(200, INFER, FOUR, {LENGTH: "0"}).endswith(FOUR))
        self.answered(400, INFER, FOUR[1:], {LENGTH: "0"})

    def test_classes(self):
        for form in ({}, {"binary_data": True}):
            outputs = [{"name": "y", "parameters": {"classification": 2, **form}}]
            self.assertIn(b"4.000000:3", self.answered(200, INFER, plain(outputs=outputs)))

    def test_large_answers_plain_and_compressed(self):
        body = plain(inputs=[tensor(shape=[500, 4], data=[0.5] * 2000)])
        self.assertEqual(len(json.loads(self.answered(200, INFER, body))["outputs"][0]["data"]), 2000)
        for accepted, begins in (("gzip", b"\x1f\x8b"), ("deflate", b"\x78"), ("br", b"{"), ("gzip;q=0, identity", b"{")):
            answer = self.answered(200, INFER, body, {"Accept-Encoding": accepted})
            self.assertTrue(answer.startswith(begins), accepted)
        self.answered(406, INFER, body, {"Accept-Encoding": "identity;q=0"})

    def test_what_is_wrong_is_said_alike(self):
        cases = [
            (404, "/v2/models/nope/infer", plain(), {}),
            (404, "/v2/models/identity/versions/nope/infer", plain(), {}),
            (400, INFER, b'{"inputs":[', {}),
            (400, INFER, b"", {}),
            (400, INFER, plain(inputs=[tensor(shape=[1, 5])]), {}),
            (400, INFER, plain(inputs=[tensor(name="z")]), {}),
            (400, INFER, plain(inputs=[tensor(datatype="FP64")]), {}),
            (400, INFER, plain(outputs=[{"name": "z"}]), {}),
            (400, INFER, plain(), {LENGTH: "9999"}),
            (400, INFER, plain(), {LENGTH: "many"}),
            (400, INFER, plain(), {"x-starling-min-epoch": "new"}),
            (501, INFER, plain(inputs=[tensor(parameters={"shared_memory_region": "r"})]), {}),
            (413, INFER, plain() + b" " * 100_000, {}),
        ]
        headers, body = binary(size=15)
        cases.append((400, INFER, body, headers))
        headers, body = binary(size=17)
        cases.append((400, INFER, body, headers))
        half = {"name": "x", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}}
        head = json.dumps({"inputs": [half]}).encode()
        cases.append((400, "/v2/models/half/infer", head + b"\0\0", {LENGTH: str(len(head))}))
        for status, path, body, headers in cases:
            with self.subTest(path=path, body=body[:100], headers=headers):
                self.assertIn(b'{"error":"', self.answered(status, path, body, headers))

    def test_what_a_path_hides_is_decoded(self):
        answer = self.answered(200, "/v2/models/%69dentity/infer", plain())
        self.assertEqual(json.loads(answer)["model_name"], "identity")

    def test_the_load_is_said_to_whom_asks(self):
        short, ordinary = both(INFER, plain(), {"endpoint-load-metrics-format": "text"})
        for answer in (short, ordinary):
            self.assertIn("requests_in_flight=", answer[1]["endpoint-load-metrics"])

    def test_decisions_are_told_alike(self):
        short, ordinary = both(INFER, plain(), quiet=False)
        # As long as the decision is, which is never the same.
        self.assertEqual(lasting(short[1], ["content-length"]), lasting(ordinary[1], ["content-length"]))
        decisions, bodies = zip(*((a[1]["x-starling-decision"], a[2]) for a in (short, ordinary)))
        self.assertNotEqual(*decisions)
        for decision, body in zip(decisions, bodies):
            self.assertEqual(json.loads(body)["parameters"]["starling_decision"], decision)
        same = [re.sub(rb'("starling_decision":)"[^"]*"', rb"\1", body) for body in bodies]
        self.assertEqual(*same)

    def test_both_are_counted_alike(self):
        for status, path, route in (
            (200, INFER, "/v2/models/{model}/infer"),
            (404, "/v2/models/nope/versions/1/infer", "/v2/models/{model}/versions/{version}/infer"),
        ):
            name = f'starling_requests_total{{code="{status}",operation="{route}",protocol="rest"}}'
            before = node.metric(name) or 0
            self.answered(status, path, plain())
            self.assertEqual(node.metric(name), before + 2)


if __name__ == "__main__":
    unittest.main()
