"""Requests that are wrong: a clear error, bounded memory, and everybody else is served."""

import gzip
import json
import unittest
import zlib

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2

import onnx_file
from node import Node

MIB = 1024 * 1024
LIMIT_BYTES = 8 * MIB
# What a request may cost besides itself: copies on the way, and what the allocator keeps.
GROWTH_MAX_BYTES = 192 * MIB


def setUpModule():
    global node
    node = Node("--max-request-bytes", "8MiB")
    unittest.addModuleCleanup(node.stop)
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 4])]))
    node.serve("text", "v1", onnx_file.identity([("x", "y", "BYTES", [-1])]))


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **changes}


def binary(size, tail, **changes):
    """A body with one binary tensor of which `size` bytes are announced and `tail` follows."""
    described = {**tensor(), "parameters": {"binary_data_size": size}, **changes}
    del described["data"]
    head = json.dumps({"inputs": [described]}).encode()
    return head + tail, len(head)


class Bad(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(node.grpc, [("grpc.max_send_message_length", -1)])
        self.addCleanup(self.channel.close)
        self.before_bytes = node.resident_bytes()
        self.addCleanup(self.check_that_others_are_served)

    def check_that_others_are_served(self):
        self.assertTrue(node.is_running(), node.log())
        status, answer = node.infer("identity", {"inputs": [tensor()]})
        self.assertEqual((status, answer["outputs"][0]["data"]), (200, [1.0, 2.0, 3.0, 4.0]))
        self.assertLess(node.resident_bytes() - self.before_bytes, GROWTH_MAX_BYTES)

    def refused_rest(self, body, headers=None, status=400, model="identity"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        answered, head, answer = node.ask("POST", f"/v2/models/{model}/infer", body, headers)
        self.assertEqual((answered, head["content-type"]), (status, "application/json"), answer[:300])
        self.assertLess(len(answer), 8_192)
        return json.loads(answer)["error"]

    def refused_grpc(self, request, code="INVALID_ARGUMENT", compression=None):
        call = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = request if isinstance(request, bytes) else request.SerializeToString()
        with self.assertRaises(grpc.RpcError) as raised:
            call(message, timeout=60, compression=compression)
        self.assertEqual(raised.exception.code().name, code, raised.exception.details())
        return raised.exception.details()

    def request(self, shape=(1, 4), contents=bytes(16), name="x", datatype="FP32"):
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(contents)
        return request


class Shapes(Bad):
    def test_ten_thousand_tiny_inputs(self):
        many = [tensor(name=f"x{number}", shape=[1], data=[1]) for number in range(10_000)]
        self.assertIn("unexpected inference input 'x0'", self.refused_rest({"inputs": many}))
        self.assertIn("came twice", self.refused_rest({"inputs": [tensor()] * 10_000}))
        request = service_pb2.ModelInferRequest(model_name="identity")
        for _ in range(10_000):
            request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
            request.raw_input_contents.append(bytes(16))
        self.assertIn("came twice", self.refused_grpc(request))

    def test_millions_of_inputs_of_two_bytes_each(self):
        # Hundreds of bytes each in memory: four million would be more than a GiB.
        empty = b"\x0a\x08identity" + b"\x2a\x00" * 10_000
        self.assertIn("unexpected inference input ''", self.refused_grpc(empty))
        self.assertIn("too many small parts", self.refused_grpc(b"\x2a\x00" * (4 * MIB - 1)))

    def test_thousands_of_parameters(self):
        many = {f"k{number}": 1 for number in range(100_000)}
        self.assertIn("more than 1024 parameters", self.refused_rest({"inputs": [tensor()], "parameters": many}))
        lists = {"k": [[0] * 1_000] * 1_000}
        self.assertIn("parameter 'k' is a list", self.refused_rest({"inputs": [tensor()], "parameters": lists}))

    def test_negative_shapes(self):
        self.assertIn("[-1, 4]", self.refused_rest({"inputs": [tensor(shape=[-1, 4])]}))
        self.assertIn("[-1, -4]", self.refused_grpc(self.request((-1, -4))))
        self.assertIn("unexpected shape", self.refused_grpc(self.request((-(2**63), 4))))

    def test_lengths_that_are_no_int64(self):
        self.assertIn("JSON of an inference request", self.refused_rest({"inputs": [tensor(shape=[2**63, 4])]}))
        self.assertIn("JSON of an inference request", self.refused_rest({"inputs": [tensor(shape=[1.5, 4])]}))
        self.assertIn("JSON of an inference request", self.refused_rest({"inputs": [tensor(shape=["1", 4])]}))

    def test_products_that_overflow(self):
        for shape in ([2**62, 4], [2**63 - 1, 4], [2**40, 2**40]):
            error = self.refused_rest({"inputs": [tensor(shape=shape)]})
            self.assertIn(str(shape), error)
        self.assertIn("more elements than memory can hold", self.refused_grpc(self.request((2**62, 4))))
        body, length = binary(16, bytes(16), shape=[2**62, 4])
        error = self.refused_rest(body, {"Inference-Header-Content-Length": str(length)})
        self.assertIn("more elements than memory can hold", error)

    def test_shapes_of_many_axes(self):
        self.assertIn("unexpected shape", self.refused_rest({"inputs": [tensor(shape=[1] * 99_999 + [4])]}))
        self.assertIn("unexpected shape", self.refused_grpc(self.request([1] * 99_999 + [4])))

    def test_elements_of_text_that_claim_to_be_longer_than_all(self):
        request = self.request((1,), b"\xff\xff\xff\xff", datatype="BYTES")
        request.model_name = "text"
        self.assertIn("says it has 4294967295 bytes, but 0 are left", self.refused_grpc(request))


class Names(Bad):
    LONG = "n" * MIB

    def test_names_of_a_megabyte_are_cut_in_the_error(self):
        self.assertIn("is not found", self.refused_rest({"inputs": [tensor()]}, model="n" * 60_000, status=404))
        self.assertIn("(cut; ", self.refused_rest({"inputs": [tensor(name=self.LONG)]}))
        self.assertIn("(cut; ", self.refused_rest({"inputs": [tensor(datatype=self.LONG)]}))
        self.assertIn("(cut; ", self.refused_rest({"inputs": [tensor()], "outputs": [{"name": self.LONG}]}))
        self.assertIn("(cut; ", self.refused_rest({"inputs": [tensor()], "parameters": {self.LONG: []}}))
        self.assertIn("(cut; ", self.refused_grpc(self.request(name=self.LONG)))
        self.assertIn("(cut; ", self.refused_grpc(self.request(datatype=self.LONG)))
        request = self.request()
        request.model_name = self.LONG
        self.assertIn("is not found", self.refused_grpc(request, "NOT_FOUND"))
        request = self.request()
        request.parameters["triton_" + self.LONG].bool_param = True
        self.assertIn("(cut; ", self.refused_grpc(request))
        request = self.request()
        request.model_version = self.LONG
        self.assertIn("is not found", self.refused_grpc(request, "NOT_FOUND"))

    def test_a_path_of_a_megabyte_is_refused_by_its_length(self):
        with node.connect() as socket:
            socket.sendall(b"GET /v2/models/" + b"n" * MIB)
            answer = socket.recv(4096)
        self.assertRegex(answer, rb"^HTTP/1\.1 4(14|31) ")

    def test_routing_keys_and_ids_have_bounds_or_come_back(self):
        error = self.refused_rest({"inputs": [tensor()], "parameters": {"routing_key": self.LONG}})
        self.assertIn("routing key", error)
        status, answer = node.infer("identity", {"inputs": [tensor()], "id": self.LONG})
        self.assertEqual((status, answer["id"]), (200, self.LONG))


class Bodies(Bad):
    def test_bodies_over_the_limit_are_refused_before_they_are_read(self):
        with node.connect() as socket:
            head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"
            socket.sendall(head % (LIMIT_BYTES + 1))
            answer = socket.recv(4096)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        self.assertIn(b"max_request_bytes", answer)
        error = self.refused_grpc(self.request(contents=bytes(LIMIT_BYTES)), "OUT_OF_RANGE")
        self.assertIn(str(LIMIT_BYTES), error)

    def test_a_body_over_the_limit_that_does_not_say_its_length(self):
        pieces = (bytes(MIB) for _ in range(64))
        try:
            status, _, answer = node.ask("POST", "/v2/models/identity/infer", pieces)
            self.assertEqual(status, 413, answer)
        except (BrokenPipeError, ConnectionResetError):
            # Refused while it was still being sent.
            pass

    def test_bombs_of_gzip_and_zlib_are_bounded_by_what_they_become(self):
        bomb = bytes(256 * MIB)
        for encoding, packed in (("gzip", gzip.compress(bomb)), ("deflate", zlib.compress(bomb))):
            self.assertLess(len(packed), MIB)
            error = self.refused_rest(packed, {"Content-Encoding": encoding}, status=413)
            self.assertIn("max_request_bytes", error)

    def test_bombs_in_grpc_messages_are_bounded_by_what_they_become(self):
        request = self.request(contents=bytes(64 * MIB))
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            error = self.refused_grpc(request, "RESOURCE_EXHAUSTED", compression)
            self.assertIn(str(LIMIT_BYTES), error)

    def test_bodies_that_are_not_what_their_encoding_says(self):
        for encoding in ("gzip", "deflate"):
            self.assertIn("could not be read", self.refused_rest(b"no such thing", {"Content-Encoding": encoding}))
        whole = gzip.compress(json.dumps({"inputs": [tensor()]}).encode())
        self.assertIn("could not be read", self.refused_rest(whole[:-9], {"Content-Encoding": "gzip"}))

    def test_json_that_is_none(self):
        for body in (b"", b"{", b"[]", b"null", b'{"inputs":1}', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000):
            self.assertIn("not the JSON of an inference request", self.refused_rest(body))
        nested = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":' + b"[" * 100_000
        self.assertIn("not the JSON of an inference request", self.refused_rest(nested))

    def test_numbers_that_are_none_in_json(self):
        for word in ("NaN", "Infinity", "-Infinity"):
            body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[%s]}]}' % word.encode()
            self.assertIn("JSON has no NaN and no Infinity", self.refused_rest(body))
        self.assertIn("out of the range of FP32", self.refused_rest({"inputs": [tensor(data=[1, 2, 3, 1e39])]}))
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1e999]}]}'
        self.assertIn("number out of range", self.refused_rest(body))

    def test_a_binary_tensor_that_is_truncated(self):
        body, length = binary(16, bytes(9))
        error = self.refused_rest(body, {"Inference-Header-Content-Length": str(length)})
        self.assertIn("input 'x': binary_data_size is 16, only 9 bytes are left", error)

    def test_bytes_behind_the_last_binary_tensor(self):
        body, length = binary(16, bytes(17))
        error = self.refused_rest(body, {"Inference-Header-Content-Length": str(length)})
        self.assertIn("1 bytes follow the last binary tensor", error)

    def test_a_header_length_beyond_the_body(self):
        body, length = binary(16, bytes(16))
        for said in (len(body) + 1, 2**63, 2**64 - 1):
            error = self.refused_rest(body, {"Inference-Header-Content-Length": str(said)})
            self.assertIn(f"{said}, the body has {len(body)} bytes", error)
        for said in ("-1", "1e3", "all", str(2**64)):
            error = self.refused_rest(body, {"Inference-Header-Content-Length": said})
            self.assertIn("must be a whole number", error)

    def test_binary_sizes_that_are_none(self):
        for size in (-1, 1.5, "16", 2**64):
            body, length = binary(size, bytes(16))
            error = self.refused_rest(body, {"Inference-Header-Content-Length": str(length)})
            self.assertIn("input 'x': binary_data_size", error)

    def test_messages_that_do_not_decode(self):
        self.refused_grpc(b"\xff" * 64, "INTERNAL")
        whole = self.request().SerializeToString()
        self.refused_grpc(whole[:-3], "INTERNAL")

    def test_random_bytes_on_both_ports(self):
        random = np.random.default_rng(7)
        for port in ("rest", "grpc", "metrics"):
            for _ in range(50):
                with node.connect(port) as socket:
                    try:
                        socket.sendall(random.bytes(512))
                    except OSError:
                        continue


if __name__ == "__main__":
    unittest.main()
