"""Connections that misbehave cost nothing but themselves: others are served, and memory stays bounded."""

import json
import resource
import socket as sockets
import threading
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import http2_frames as h2
import onnx_file
from node import Node, eventually

MIB = 1024 * 1024
IDLE = 5_000


def setUpModule():
    global node
    # The node inherits it.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE + 1_000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    node = Node("--header-read-timeout", "2s", "--max-connections", "10000")
    unittest.addModuleCleanup(node.stop)
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 4])]))


def tensor():
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


class Misbehaving(unittest.TestCase):
    def setUp(self):
        self.before_bytes = node.resident_bytes()
        self.addCleanup(self.assertServed)

    def assertServed(self):
        """Over both protocols, on new connections."""
        self.assertTrue(node.is_running(), node.log())
        # What the others have asked for runs first; a refusal until then says when to try again.
        status, answer = eventually("room for a request over REST", self.predict)
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["outputs"][0]["data"], [1.0, 2.0, 3.0, 4.0])
        client = grpcclient.InferenceServerClient(node.grpc)
        array = np.ones((1, 4), np.float32)
        answer = eventually("room for a request over gRPC", lambda: self.predict_over_grpc(client, array))
        np.testing.assert_array_equal(answer.as_numpy("y"), array)
        client.close()

    def predict(self):
        """None: there is no room now."""
        status, answer = node.infer("identity", {"inputs": [tensor()]})
        return None if status == 429 else (status, answer)

    def predict_over_grpc(self, client, array):
        """None: there is no room now."""
        given = grpcclient.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(array)
        try:
            return client.infer("identity", [given], client_timeout=30)
        except InferenceServerException as refusal:
            if refusal.status() != "StatusCode.RESOURCE_EXHAUSTED":
                raise
            return None

    def assertGrewLessThan(self, limit_bytes):
        grown = node.resident_bytes() - self.before_bytes
        self.assertLess(grown, limit_bytes, f"grew by {grown / MIB:.0f} MiB")

    def open(self, port="rest"):
        connection = node.connect(port)
        self.addCleanup(connection.close)
        return connection

    def request(self, rows=1):
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
        request.raw_input_contents.append(bytes(16 * rows))
        return h2.grpc_message(request.SerializeToString())

    def test_five_thousand_idle_connections(self):
        for number in range(IDLE):
            connection = self.open("grpc" if number % 2 else "rest")
            if number % 2:
                connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
        eventually(
            "the gRPC connections are open",
            lambda: node.metric('starling_connections{port="grpc"}') >= IDLE // 2,
        )
        self.assertServed()
        self.assertGrewLessThan(256 * MIB)

    def test_rapid_reset(self):
        # Each stream is opened and reset at once, as fast as the connection takes it.
        with node.connect("grpc") as connection:
            opened = h2.Connection(connection)
            head = h2.grpc_headers()
            cancel = (8).to_bytes(4, "big")
            try:
                for burst in range(100):
                    frames = b""
                    for number in range(100):
                        stream = 2 * (100 * burst + number) + 1
                        frames += h2.frame(h2.HEADERS, h2.END_HEADERS, stream, head)
                        frames += h2.frame(h2.RST_STREAM, 0, stream, cancel)
                    opened.send(frames)
            except OSError:
                # The server has had enough of it.
                pass
            self.assertServed()
        self.assertGrewLessThan(128 * MIB)

    def test_rapid_reset_of_requests_that_are_whole(self):
        with node.connect("grpc") as connection:
            opened = h2.Connection(connection)
            head = h2.grpc_headers()
            cancel = (8).to_bytes(4, "big")
            message = self.request()
            try:
                for number in range(2_000):
                    stream = 2 * number + 1
                    frames = h2.frame(h2.HEADERS, h2.END_HEADERS, stream, head)
                    frames += h2.frame(h2.DATA, h2.END_STREAM, stream, message)
                    opened.send(frames + h2.frame(h2.RST_STREAM, 0, stream, cancel))
            except OSError:
                pass
            self.assertServed()
        self.assertGrewLessThan(128 * MIB)

    def test_a_grpc_client_that_never_reads(self):
        # Each answer is as large as its request: 64 KiB, and nobody takes it.
        connection = self.open("grpc")
        connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        opened = h2.Connection(connection)
        message = self.request(rows=4096)
        connection.settimeout(2)
        try:
            for number in range(500):
                stream = 2 * number + 1
                opened.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.grpc_headers()))
                for start in range(0, len(message), 16384):
                    piece = message[start : start + 16384]
                    last = h2.END_STREAM if start + 16384 >= len(message) else 0
                    opened.send(h2.frame(h2.DATA, last, stream, piece))
        except OSError:
            # The windows are full: the server takes no more.
            pass
        self.assertServed()
        self.assertGrewLessThan(256 * MIB)

    def test_rest_clients_that_never_read(self):
        rows = 20_000
        body = json.dumps({"inputs": [{**tensor(), "shape": [rows, 4], "data": [0.5] * 4 * rows}]}).encode()
        head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(20):
            connection = self.open()
            connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            connection.settimeout(2)
            try:
                for _ in range(5):
                    connection.sendall(head + body)
            except OSError:
                pass
        self.assertServed()
        self.assertGrewLessThan(256 * MIB)

    def test_heads_that_come_byte_by_byte_are_given_up(self):
        slow = [self.open() for _ in range(50)]
        for connection in slow:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: te")
        self.assertServed()
        stop = threading.Event()

        def drip():
            while not stop.wait(0.2):
                for connection in slow:
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        self.addCleanup(dripping.join)
        self.addCleanup(stop.set)
        for connection in slow:
            connection.settimeout(20)
            try:
                self.assertNotIn(b"200 OK", connection.recv(4096))
            except ConnectionResetError:
                pass

    def test_bodies_that_stop_coming_are_given_up_with_408(self):
        head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"
        stalled = [self.open() for _ in range(20)]
        for connection in stalled:
            connection.sendall(head)
        self.assertServed()
        for connection in stalled:
            connection.settimeout(20)
            self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 408 "))

    def test_half_open_connections(self):
        # The client says that it sends nothing more, in the middle of a request.
        for port in ("rest", "grpc"):
            for _ in range(50):
                connection = self.open(port)
                if port == "grpc":
                    connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
                    connection.sendall(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers()))
                else:
                    connection.sendall(b"POST /v2/models/identity/infer HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
                connection.shutdown(sockets.SHUT_WR)
        self.assertServed()
        for port in ("rest", "grpc"):
            eventually(
                f"connections to {port} that are half open are closed",
                lambda: (node.metric(f'starling_connections{{port="{port}"}}') or 0) <= 1,
            )

    def test_connections_that_are_reset_in_the_middle(self):
        for _ in range(100):
            connection = node.connect("grpc")
            connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
            connection.sendall(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers()) + b"\x00\x00")
            # No FIN but a reset.
            connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()
        self.assertServed()
        self.assertGrewLessThan(64 * MIB)

    def test_streams_that_send_nothing(self):
        connection = self.open("grpc")
        opened = h2.Connection(connection)
        for number in range(500):
            opened.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * number + 1, h2.grpc_headers("ModelStreamInfer")))
        self.assertServed()
        self.assertGrewLessThan(64 * MIB)


if __name__ == "__main__":
    unittest.main()
