"""The extensions that are honoured, and those that are not: refused with the reason, and not advertised."""

import gzip
import json
import unittest
import zlib

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import http2_frames as h2
import onnx_file
from node import MODELS, Node

PIXELS = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8).reshape(-1, 65)[:8, :64].astype(np.float32)


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("plain", "v2", MODELS / "digits-v2.onnx")
    node.run("model", "push", "quiet", MODELS / "digits-v2.onnx", "--quiet")
    node.serve("identity", "v1", onnx_file.identity([("x", "y", "FP32", [-1, 4])]))
    node.serve("whole", "v1", onnx_file.identity([("x", "y", "INT64", [5])]))


def both(test):
    """Runs a test with the client of either protocol."""

    def run(self):
        for module, url in ((grpcclient, node.grpc), (httpclient, node.rest)):
            client = module.InferenceServerClient(url)
            try:
                with self.subTest(module.__name__):
                    test(self, client, module)
            finally:
                client.close()

    return run


def tensor(module, name, array, datatype="FP32"):
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


class Classification(unittest.TestCase):
    @both
    def test_the_best_classes_come_as_text_for_each_row(self, client, module):
        scores = client.infer("plain", [tensor(module, "pixels", PIXELS)]).as_numpy("output_probability")
        wanted = [module.InferRequestedOutput("output_probability", class_count=3)]
        classes = client.infer("plain", [tensor(module, "pixels", PIXELS)], outputs=wanted)
        classes = classes.as_numpy("output_probability")
        self.assertEqual(classes.shape, (8, 3))
        for row, best in zip(scores, classes):
            found = [text.decode().split(":") for text in best]
            self.assertEqual([int(index) for _, index in found], list(np.argsort(-row, kind="stable")[:3]))
            for value, index in found:
                self.assertAlmostEqual(float(value), row[int(index)], places=5)

    @both
    def test_a_model_without_a_batch_axis_has_one_list(self, client, module):
        wanted = [module.InferRequestedOutput("y", class_count=2)]
        array = np.array([3, 9, -1, 9, 0], np.int64)
        result = client.infer("whole", [tensor(module, "x", array, "INT64")], outputs=wanted).as_numpy("y")
        self.assertEqual(result.tolist(), [b"9:1", b"9:3"])

    def test_rest_shows_them_in_json(self):
        request = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, 0, -1]}],
            "outputs": [{"name": "y", "parameters": {"classification": 2}}],
        }
        status, answer = node.infer("identity", request)
        self.assertEqual(status, 200, answer)
        self.assertEqual(
            answer["outputs"], [{"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["2.500000:1", "1.000000:0"]}]
        )
        request["outputs"][0]["parameters"]["classification"] = 0
        status, answer = node.infer("identity", request)
        self.assertEqual(status, 400)
        self.assertIn("parameter 'classification' of output 'y'", answer["error"])


class Parameters(unittest.TestCase):
    CUSTOM = {"flag": True, "count": 7, "share": 0.5, "segment": "gold"}

    @both
    def test_parameters_of_the_users_own_are_accepted(self, client, module):
        result = client.infer("plain", [tensor(module, "pixels", PIXELS)], parameters=self.CUSTOM)
        self.assertEqual(result.as_numpy("output_label").shape, (8,))

    def test_every_type_of_parameter_is_accepted_over_either_protocol(self):
        array = np.ones((1, 4), np.float32)
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(array.tobytes())
        request.parameters["a"].bool_param = True
        request.parameters["b"].int64_param = -1
        request.parameters["c"].double_param = 0.5
        request.parameters["d"].string_param = "gold"
        request.parameters["e"].uint64_param = 2**64 - 1
        client = grpcclient.InferenceServerClient(node.grpc)
        self.addCleanup(client.close)
        self.assertEqual(client._client_stub.ModelInfer(request).model_name, "identity")
        rest = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}],
            "parameters": {"a": True, "b": -1, "c": 0.5, "d": "gold", "e": 2**64 - 1},
        }
        self.assertEqual(node.infer("identity", rest)[0], 200)
        rest["parameters"]["f"] = [1]
        status, answer = node.infer("identity", rest)
        self.assertEqual(status, 400)
        self.assertIn("parameter 'f'", answer["error"])

    @both
    def test_a_version_can_be_pushed_to_be_quiet(self, client, module):
        answer = client.infer("quiet", [tensor(module, "pixels", PIXELS)]).get_response()
        parameters = answer.get("parameters", {}) if isinstance(answer, dict) else answer.parameters
        self.assertEqual(len(parameters), 0)

    def test_the_headers_of_a_quiet_version_say_nothing_of_its_decision(self):
        request = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
        for model, said in (("plain", True), ("quiet", False)):
            with self.subTest(model):
                path = f"/v2/models/{model}/infer"
                status, headers, _ = node.ask("POST", path, json.dumps(request).encode())
                self.assertEqual(status, 200)
                self.assertEqual("x-starling-decision" in headers, said)

    def test_metadata_repeats_the_parameters_for_those_who_ask(self):
        request = service_pb2.ModelInferRequest(model_name="plain")
        pixels = request.inputs.add(name="pixels", datatype="FP32")
        pixels.shape.extend([1, 64])
        request.raw_input_contents.append(bytes(4 * 64))
        with grpc.insecure_channel(node.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for asked in (False, True):
                with self.subTest(asked):
                    words = (("x-starling-metadata", "true"),) if asked else ()
                    answer, call = stub.ModelInfer.with_call(request, metadata=words)
                    said = dict(call.initial_metadata()).get("x-starling-decision")
                    decision = answer.parameters["starling_decision"].string_param
                    self.assertEqual(said, decision if asked else None)

    @both
    def test_an_answer_can_be_asked_to_be_quiet(self, client, module):
        answer = client.infer("plain", [tensor(module, "pixels", PIXELS)], parameters={"starling_quiet": True})
        answer = answer.get_response()
        parameters = answer.get("parameters", {}) if isinstance(answer, dict) else answer.parameters
        self.assertEqual(len(parameters), 0)

    @both
    def test_the_decision_is_in_the_answer(self, client, module):
        answer = client.infer("plain", [tensor(module, "pixels", PIXELS)], parameters={"routing_key": "ada"})
        answer = answer.get_response()
        parameters = answer["parameters"] if isinstance(answer, dict) else answer.parameters
        for name in ("decision", "epoch", "version", "propensity", "sticky", "node"):
            self.assertIn(f"starling_{name}", parameters)


class NotThere(unittest.TestCase):
    """Refused with the reason."""

    def assertUnsupported(self, call, *words):
        with self.assertRaises(InferenceServerException) as raised:
            call()
        self.assertIn(raised.exception.status(), ("501", "StatusCode.UNIMPLEMENTED"))
        for word in words:
            self.assertIn(word, raised.exception.message())

    @both
    def test_shared_memory(self, client, module):
        self.assertUnsupported(client.get_system_shared_memory_status, "shared memory is not supported")
        self.assertUnsupported(client.get_cuda_shared_memory_status, "shared memory is not supported")
        self.assertUnsupported(client.unregister_system_shared_memory, "shared memory is not supported")
        self.assertUnsupported(client.unregister_cuda_shared_memory, "shared memory is not supported")
        self.assertUnsupported(lambda: client.register_system_shared_memory("r", "/k", 64), "shared memory")
        shared = module.InferInput("x", [1, 4], "FP32")
        shared.set_shared_memory("r", 16)
        self.assertUnsupported(lambda: client.infer("identity", [shared]), "'x'", "shared memory is not supported")
        wanted = module.InferRequestedOutput("y")
        wanted.set_shared_memory("r", 16)
        given = [tensor(module, "x", np.ones((1, 4), np.float32))]
        self.assertUnsupported(lambda: client.infer("identity", given, outputs=[wanted]), "'y'", "shared memory")

    @both
    def test_trace_and_log_settings(self, client, module):
        self.assertUnsupported(client.get_trace_settings, "trace settings are not supported")
        self.assertUnsupported(lambda: client.get_trace_settings("plain"), "trace settings are not supported")
        self.assertUnsupported(lambda: client.update_trace_settings(settings={}), "trace settings")
        self.assertUnsupported(client.get_log_settings, "log_level")
        self.assertUnsupported(lambda: client.update_log_settings({"log_info": True}), "log_level")

    @both
    def test_sequences(self, client, module):
        given = [tensor(module, "x", np.ones((1, 4), np.float32))]
        for sequence in (7, "a-b"):
            call = lambda: client.infer("identity", given, sequence_id=sequence, sequence_start=True)
            self.assertUnsupported(call, "sequence", "no state is kept")

    @both
    def test_unloading_and_loading_with_another_configuration(self, client, module):
        client.load_model("plain")
        self.assertUnsupported(lambda: client.load_model("plain", config="{}"), "starling model push")
        self.assertUnsupported(lambda: client.unload_model("plain"), "starling model delete plain")
        with self.assertRaises(InferenceServerException) as raised:
            client.load_model("nope")
        self.assertIn(raised.exception.status(), ("404", "StatusCode.NOT_FOUND"))

    def test_generate(self):
        for path in ("generate", "generate_stream", "versions/1/generate"):
            status, headers, body = node.ask("POST", f"/v2/models/plain/{path}", b'{"text_input":"x"}')
            self.assertEqual((status, headers["content-type"]), (501, "application/json"))
            self.assertIn("generate is not supported", json.loads(body)["error"])

    def test_none_of_them_is_advertised(self):
        _, _, body = node.ask("GET", "/v2")
        extensions = json.loads(body)["extensions"]
        self.assertIn("classification", extensions)
        self.assertIn("statistics", extensions)
        for absent in ("sequence", "trace", "logging", "system_shared_memory", "cuda_shared_memory"):
            self.assertNotIn(absent, extensions)


class Compression(unittest.TestCase):
    def test_rest_takes_and_gives_gzip_and_deflate(self):
        request = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [64, 4], "data": [0.5] * 256}]})
        for encoding, pack, unpack in (
            ("gzip", gzip.compress, gzip.decompress),
            ("deflate", zlib.compress, zlib.decompress),
        ):
            headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
            body = pack(request.encode())
            status, answered, body = node.ask("POST", "/v2/models/identity/infer", body, headers)
            self.assertEqual((status, answered["content-encoding"]), (200, encoding))
            self.assertEqual(json.loads(unpack(body))["outputs"][0]["data"], [0.5] * 256)

    def test_the_header_length_counts_the_json_as_it_is_uncompressed(self):
        array = np.ones((64, 4), np.float32)
        for request_as, answer_as in (("gzip", "deflate"), ("deflate", "gzip"), (None, "gzip"), ("gzip", None)):
            client = httpclient.InferenceServerClient(node.rest)
            result = client.infer(
                "identity",
                [tensor(httpclient, "x", array)],
                request_compression_algorithm=request_as,
                response_compression_algorithm=answer_as,
            )
            np.testing.assert_array_equal(result.as_numpy("y"), array)
            client.close()

    def test_an_unknown_encoding_is_415_as_json(self):
        status, headers, body = node.ask("POST", "/v2/models/identity/infer", b"x", {"Content-Encoding": "br"})
        self.assertEqual((status, headers["content-type"]), (415, "application/json"))
        self.assertIn("gzip", json.loads(body)["error"])

    def test_grpc_takes_gzip_and_deflate(self):
        client = grpcclient.InferenceServerClient(node.grpc)
        self.addCleanup(client.close)
        array = np.ones((64, 4), np.float32)
        for algorithm in ("gzip", "deflate"):
            result = client.infer("identity", [tensor(grpcclient, "x", array)], compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("y"), array)

    def test_grpc_compresses_its_answer_exactly_where_the_request_was(self):
        message = service_pb2.ModelMetadataRequest(name="identity").SerializeToString()
        packed = gzip.compress(message)
        accepted = ("grpc-accept-encoding", "identity, deflate, gzip")
        as_is = h2.headers([accepted]), b"\x00" + len(message).to_bytes(4, "big") + message
        zipped = (
            h2.headers([accepted, ("grpc-encoding", "gzip")]),
            b"\x01" + len(packed).to_bytes(4, "big") + packed,
        )
        for (more_headers, body), compressed in ((as_is, 0), (zipped, 1)):
            with node.connect("grpc") as socket:
                connection = h2.Connection(socket)
                head = h2.grpc_headers("ModelMetadata") + more_headers
                connection.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, head))
                connection.send(h2.frame(h2.DATA, h2.END_STREAM, 1, body))
                while True:
                    kind, _, stream, payload = connection.receive()
                    if kind == h2.DATA and stream == 1 and payload:
                        break
                self.assertEqual(payload[0], compressed)
                answer = gzip.decompress(payload[5:]) if compressed else payload[5:]
                self.assertEqual(service_pb2.ModelMetadataResponse.FromString(answer).name, "identity")


class RestForms(unittest.TestCase):
    def test_a_raw_binary_request_is_the_bytes_of_the_only_input(self):
        array = np.array([1, 2, 3, 4], np.float32)
        headers = {"Inference-Header-Content-Length": "0"}
        status, answered, body = node.ask("POST", "/v2/models/identity/infer", array.tobytes(), headers)
        self.assertEqual((status, answered["content-type"]), (200, "application/octet-stream"))
        length = int(answered["inference-header-content-length"])
        self.assertEqual(json.loads(body[:length])["outputs"][0]["shape"], [1, 4])
        self.assertEqual(body[length:], array.tobytes())
        status, _, body = node.ask("POST", "/v2/models/identity/infer", array.tobytes()[:-1], headers)
        self.assertEqual(status, 400)
        self.assertIn("input 'x'", json.loads(body)["error"])

    def test_the_load_is_said_to_whoever_asks_for_it(self):
        request = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]})
        for asked, expected in (("text", "TEXT named_metrics."), ("json", "JSON {"), (None, None)):
            headers = {"endpoint-load-metrics-format": asked} if asked else {}
            _, answered, _ = node.ask("POST", "/v2/models/identity/infer", request.encode(), headers)
            said = answered["endpoint-load-metrics"]
            self.assertEqual(said and said[: len(expected)], expected)

    def test_no_number_is_null_in_json_and_itself_in_binary(self):
        array = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
        for module, url in ((grpcclient, node.grpc), (httpclient, node.rest)):
            client = module.InferenceServerClient(url)
            result = client.infer("identity", [tensor(module, "x", array)])
            np.testing.assert_array_equal(result.as_numpy("y"), array)
            client.close()
        client = httpclient.InferenceServerClient(node.rest)
        self.addCleanup(client.close)
        wanted = [httpclient.InferRequestedOutput("y", binary_data=False)]
        answer = client.infer("identity", [tensor(httpclient, "x", array)], outputs=wanted).get_response()
        self.assertEqual(answer["outputs"][0]["data"], [None, None, None, 1.0])

    def test_paths_and_methods_that_are_not_there_are_refused_as_json(self):
        for method, path, expected in (
            ("GET", "/", 404),
            ("GET", "/v1/models/plain", 404),
            ("GET", "/v2/nope", 404),
            ("GET", "/v2/models/plain/infer", 405),
            ("POST", "/v2/models/plain", 405),
            ("DELETE", "/v2/health/live", 405),
            ("GET", "/v2/repository/index", 405),
        ):
            status, headers, body = node.ask(method, path, b"" if method == "POST" else None)
            self.assertEqual((status, headers["content-type"]), (expected, "application/json"), path)
            self.assertIn("error", json.loads(body))
            self.assertEqual("allow" in headers, status == 405, path)

    def test_the_index_can_be_of_ready_versions_and_of_a_named_repository(self):
        for path in ("/v2/repository/index", "/v2/repository/any/index"):
            status, _, body = node.ask("POST", path, b'{"ready":true}')
            self.assertEqual(status, 200)
            names = [entry["name"] for entry in json.loads(body)]
            self.assertEqual(names, ["identity", "plain", "quiet", "whole"])


class Counted(unittest.TestCase):
    def test_what_is_counted_adds_up_in_statistics_and_in_metrics(self):
        def of(name):
            return node.metric(f'nv_inference_{name}{{model="whole",version="1"}}') or 0

        before = {name: of(name) for name in ("request_success", "count", "exec_count", "request_duration_us")}
        reason = 'nv_inference_request_failure{model="whole",reason="OTHER",version="1"}'
        failed_before = node.metric(reason)
        good = {"name": "x", "datatype": "INT64", "shape": [5], "data": [1, 2, 3, 4, 5]}
        for _ in range(3):
            self.assertEqual(node.infer("whole", {"inputs": [good]})[0], 200)
        self.assertEqual(node.infer("whole", {"inputs": [{**good, "shape": [1, 5]}]})[0], 400)
        self.assertEqual(of("request_success") - before["request_success"], 3)
        self.assertEqual(of("count") - before["count"], 3)
        self.assertEqual(of("exec_count") - before["exec_count"], 3)
        self.assertEqual(node.metric(reason) - failed_before, 1)
        parts = sum(of(f"{part}_duration_us") for part in ("queue", "compute_input", "compute_infer", "compute_output"))
        self.assertAlmostEqual(of("request_duration_us"), parts, delta=4)


if __name__ == "__main__":
    unittest.main()
