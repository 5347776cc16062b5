"""The places where servers of this protocol differ and clients break: one named test for each, (a) to (s)."""

import json
import time
import unittest

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import http2_frames as h2
import onnx_file
from node import MODELS, ROOT, Node

SIXTEEN = np.arange(16, dtype=np.float32).reshape(1, 16)


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 16])]))
    node.serve("half", "v1", onnx_file.identity([("x", "y", "FP16", [-1])]))
    node.serve("text", "v1", onnx_file.identity([("x", "y", "BYTES", [-1])]))
    node.serve("big", "v1", onnx_file.identity([("x", "y", "UINT64", [-1])]))
    node.serve("slow", "v1", ROOT / "models/testdata/slow_loop.onnx")


class Traps(unittest.TestCase):
    def setUp(self):
        self.grpc = grpcclient.InferenceServerClient(node.grpc)
        self.addCleanup(self.grpc.close)
        self.rest = httpclient.InferenceServerClient(node.rest)
        self.addCleanup(self.rest.close)

    def tensor(self, client, array, datatype="FP32"):
        tensor = client.InferInput("x", list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def json_tensor(self, **changes):
        return {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": SIXTEEN[0].tolist(), **changes}

    def refused(self, model="identity", inputs=None, **settings):
        with self.assertRaises(InferenceServerException) as raised:
            self.grpc.infer(model, inputs or [self.tensor(grpcclient, SIXTEEN)], **settings)
        return raised.exception

    def test_a_messages_over_4_mib_pass_both_ways(self):
        array = np.zeros((131_072, 16), np.float32)
        result = self.grpc.infer("identity", [self.tensor(grpcclient, array)])
        self.assertEqual(result.as_numpy("y").shape, (131_072, 16))

    def test_b_a_raw_request_is_answered_raw_only(self):
        answer = self.grpc.infer("identity", [self.tensor(grpcclient, SIXTEEN)]).get_response()
        self.assertEqual(len(answer.raw_output_contents), 1)
        self.assertFalse(answer.outputs[0].HasField("contents"))

    def test_c_the_http_client_asks_for_binary_outputs_by_default_and_gets_them(self):
        request = {"inputs": [self.json_tensor()], "parameters": {"binary_data_output": True}}
        status, headers, body = node.ask("POST", "/v2/models/identity/infer", json.dumps(request).encode())
        self.assertEqual((status, headers["content-type"]), (200, "application/octet-stream"))
        self.assertEqual(body[int(headers["inference-header-content-length"]) :], SIXTEEN.tobytes())
        result = self.rest.infer("identity", [self.tensor(httpclient, SIXTEEN)])
        np.testing.assert_array_equal(result.as_numpy("y"), SIXTEEN)

    def test_d_health_has_json_bodies(self):
        for path, expected in (
            ("/v2/health/live", {"live": True}),
            ("/v2/health/ready", {"ready": True}),
            ("/v2/models/identity/ready", {"name": "identity", "ready": True}),
        ):
            status, _, body = node.ask("GET", path)
            self.assertEqual((status, json.loads(body)), (200, expected))

    def test_e_load_takes_the_model_from_the_field_of_triton_or_of_kserve(self):
        # With KServe's own generated code: test_kserve.py.
        stub = self.grpc._client_stub
        self.assertEqual(
            stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="identity")).ByteSize(), 0
        )
        named_as_kserve = service_pb2.RepositoryModelLoadRequest(repository_name="identity")
        self.assertGreater(stub.RepositoryModelLoad(named_as_kserve).ByteSize(), 0)

    def test_f_a_stream_answers_in_the_shape_of_triton_and_errors_travel_inside(self):
        answers = []
        self.grpc.start_stream(lambda result, error: answers.append((result, error)))
        self.grpc.async_stream_infer("nope", [self.tensor(grpcclient, SIXTEEN)], request_id="1")
        self.grpc.async_stream_infer("identity", [self.tensor(grpcclient, SIXTEEN)], request_id="2")
        self.grpc.stop_stream()
        (_, error), (result, none) = answers
        self.assertIn("'nope' is not found", error.message())
        self.assertIsNone(none)
        answer = result.get_response()
        self.assertEqual(answer.id, "2")
        self.assertTrue(answer.parameters["triton_final_response"].bool_param)

    def test_f_a_stream_ends_with_the_real_status_where_the_client_wants_that(self):
        answers = []
        headers = {"triton_grpc_error": "true"}
        self.grpc.start_stream(lambda result, error: answers.append((result, error)), headers=headers)
        self.grpc.async_stream_infer("nope", [self.tensor(grpcclient, SIXTEEN)])
        self.grpc.stop_stream()
        self.assertEqual(answers[0][1].status(), "StatusCode.NOT_FOUND")

    def test_g_tensors_without_elements_come_back_without_elements(self):
        nothing = np.zeros((0, 16), np.float32)
        for client, module in ((self.grpc, grpcclient), (self.rest, httpclient)):
            result = client.infer("identity", [self.tensor(module, nothing)])
            self.assertEqual(result.as_numpy("y").shape, (0, 16))
        status, answer = node.infer("identity", {"inputs": [self.json_tensor(shape=[0, 16], data=[])]})
        self.assertEqual((status, answer["outputs"][0]["shape"], answer["outputs"][0]["data"]), (200, [0, 16], []))

    def test_h_bytes_keep_nul_and_what_is_no_text(self):
        texts = np.array([b"a\0b", b"\xff\xfe", b""], np.object_)
        for client, module in ((self.grpc, grpcclient), (self.rest, httpclient)):
            answered = client.infer("text", [self.tensor(module, texts, "BYTES")]).as_numpy("y")
            self.assertEqual(answered.tolist(), texts.tolist())

    def test_h_bytes_that_are_no_text_have_no_json_form(self):
        tensor = self.tensor(httpclient, np.array([b"\xff"], np.object_), "BYTES")
        wanted = [httpclient.InferRequestedOutput("y", binary_data=False)]
        with self.assertRaises(InferenceServerException) as raised:
            self.rest.infer("text", [tensor], outputs=wanted)
        self.assertEqual(raised.exception.status(), "400")
        self.assertIn("binary_data", raised.exception.message())

    def test_i_half_floats_have_no_json_form_either_way(self):
        tensor = {"name": "x", "datatype": "FP16", "shape": [1], "data": [1.5]}
        status, answer = node.infer("half", {"inputs": [tensor]})
        self.assertEqual(status, 400)
        self.assertIn("FP16 has no JSON form", answer["error"])
        wanted = [httpclient.InferRequestedOutput("y", binary_data=False)]
        with self.assertRaises(InferenceServerException) as raised:
            self.rest.infer("half", [self.tensor(httpclient, np.ones(1, np.float16), "FP16")], outputs=wanted)
        self.assertIn("output 'y': FP16 has no JSON form", raised.exception.message())

    def test_j_timeout_is_in_microseconds_and_beside_the_deadline_of_the_call(self):
        inputs = [self.tensor(grpcclient, np.array([[1]], np.int64), "INT64")]
        inputs[0] = grpcclient.InferInput("trips", [1, 1], "INT64")
        inputs[0].set_data_from_numpy(np.array([[1]], np.int64))
        self.assertIsNotNone(self.grpc.infer("slow", inputs, timeout=20_000_000))
        self.assertEqual(self.refused("slow", inputs, timeout=1).status(), "StatusCode.DEADLINE_EXCEEDED")
        inputs[0].set_data_from_numpy(np.array([[400_000]], np.int64))
        began = time.monotonic()
        late = self.refused("slow", inputs, client_timeout=0.2)
        self.assertEqual(late.status(), "StatusCode.DEADLINE_EXCEEDED")
        self.assertLess(time.monotonic() - began, 5)

    def test_k_an_unknown_output_is_an_invalid_argument(self):
        error = self.refused(outputs=[grpcclient.InferRequestedOutput("z")])
        self.assertEqual(error.status(), "StatusCode.INVALID_ARGUMENT")
        self.assertIn("unexpected inference output 'z' for model 'identity'", error.message())

    def test_l_contents_of_the_wrong_length_are_refused_with_both_numbers(self):
        tensor = self.tensor(grpcclient, SIXTEEN)
        tensor.set_shape([2, 16])
        error = self.refused(inputs=[tensor])
        self.assertEqual(error.status(), "StatusCode.INVALID_ARGUMENT")
        self.assertIn("input byte size mismatch for input 'x' for model 'identity'. Expected 128, got 64", error.message())

    def test_m_pings_are_answered_however_often_they_come(self):
        with node.connect("grpc") as socket:
            connection = h2.Connection(socket)
            for number in range(300):
                connection.send(h2.frame(h2.PING, 0, 0, number.to_bytes(8, "big")))
            answered = 0
            while answered < 300:
                kind, flags, _, _ = connection.receive()
                self.assertNotEqual(kind, h2.GOAWAY)
                answered += kind == h2.PING and flags & h2.ACK
        options = [
            ("grpc.keepalive_time_ms", 100),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        client = grpcclient.InferenceServerClient(node.grpc, channel_args=options)
        self.addCleanup(client.close)
        for _ in range(5):
            self.assertTrue(client.is_server_live())

    def test_n_a_client_that_waits_for_100_continue_is_told_to_go_on_and_may_ask_again(self):
        body = json.dumps({"inputs": [self.json_tensor()]}).encode()
        head = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n" % len(body)
        with node.connect() as socket:
            for _ in range(2):
                socket.sendall(head + b"Expect: 100-continue\r\n\r\n")
                with_answer = socket.recv(4096)
                self.assertTrue(with_answer.startswith(b"HTTP/1.1 100 Continue\r\n"), with_answer)
                socket.sendall(body)
                answer = b""
                while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                    answer += socket.recv(65536)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)

    def test_o_model_names_may_be_url_quoted(self):
        body = json.dumps({"inputs": [self.json_tensor()]}).encode()
        status, _, answer = node.ask("POST", "/v2/models/%69dentity/versions/v%31/infer", body)
        self.assertEqual((status, json.loads(answer)["model_name"]), (200, "identity"))
        for path in ("/v2/models/a%2Fb", "/v2/models/a%20b%3F"):
            status, _, answer = node.ask("GET", path)
            self.assertEqual(status, 404)
            self.assertIn("is not found", json.loads(answer)["error"])
        self.assertFalse(self.rest.is_model_ready("a/b c?"))
        status, headers, answer = node.ask("GET", "/v2/models/%ff")
        self.assertEqual((status, headers["content-type"]), (400, "application/json"))

    def test_p_whole_numbers_beyond_doubles_stay_exact_in_json(self):
        numbers = [2**53 + 1, 2**64 - 1]
        tensor = {"name": "x", "datatype": "UINT64", "shape": [2], "data": numbers}
        status, answer = node.infer("big", {"inputs": [tensor]})
        self.assertEqual((status, answer["outputs"][0]["data"]), (200, numbers))

    def test_q_the_parameter_that_every_c_plus_plus_client_sends_is_accepted(self):
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
        request.raw_input_contents.append(SIXTEEN.tobytes())
        request.parameters["triton_enable_empty_final_response"].bool_param = False
        self.assertEqual(self.grpc._client_stub.ModelInfer(request).model_name, "identity")
        request.parameters["triton_other"].bool_param = False
        with self.assertRaises(grpc.RpcError) as raised:
            self.grpc._client_stub.ModelInfer(request)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("triton_other", raised.exception.details())

    def test_r_every_success_is_200(self):
        infer = json.dumps({"inputs": [self.json_tensor()]}).encode()
        for method, path, body in (
            ("GET", "/v2", None),
            ("GET", "/v2/health/live", None),
            ("GET", "/v2/health/ready", None),
            ("GET", "/v2/models", None),
            ("GET", "/v2/models/stats", None),
            ("GET", "/v2/models/identity", None),
            ("GET", "/v2/models/identity/ready", None),
            ("GET", "/v2/models/identity/config", None),
            ("GET", "/v2/models/identity/stats", None),
            ("GET", "/v2/models/identity/versions/1", None),
            ("GET", "/v2/models/identity/versions/1/ready", None),
            ("GET", "/v2/models/identity/versions/1/config", None),
            ("GET", "/v2/models/identity/versions/1/stats", None),
            ("POST", "/v2/models/identity/infer", infer),
            ("POST", "/v2/models/identity/versions/1/infer", infer),
            ("POST", "/v2/repository/index", b""),
            ("POST", "/v2/repository/models/identity/load", b"{}"),
        ):
            status, headers, _ = node.ask(method, path, body)
            self.assertEqual((status, headers["content-type"]), (200, "application/json"), path)

    def test_s_the_path_of_the_service_is_what_clients_dial(self):
        with grpc.insecure_channel(node.grpc) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            self.assertEqual(live(b"", timeout=30), b"\x08\x01")


if __name__ == "__main__":
    unittest.main()
