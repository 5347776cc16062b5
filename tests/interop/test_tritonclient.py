"""The official Python client, unmodified, against a running node: gRPC, and REST with binary and JSON tensors."""

import json
import unittest
import urllib.error
import urllib.request

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from node import MODELS, Node

HELD_BACK = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8).reshape(-1, 65)
PIXELS = HELD_BACK[:, :64].astype(np.float32)
LABELS = HELD_BACK[:, 64].astype(np.int64)


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    # `digits` ends in a ZipMap, as skl2onnx exports classifiers by default.
    node.serve("digits", "v1", MODELS / "digits-v1.onnx")
    node.serve("plain", "v2", MODELS / "digits-v2.onnx")


class Both:
    """What the client must find over either protocol; the subclasses name the protocol."""

    client_module = None
    url = ""

    def setUp(self):
        self.client = self.client_module.InferenceServerClient(self.url())
        self.addCleanup(self.client.close)

    def input(self, array, datatype="FP32", name="pixels"):
        tensor = self.client_module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def test_the_server_and_both_models_are_live_and_ready(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("digits"))
        self.assertTrue(self.client.is_model_ready("plain", "1"))
        self.assertFalse(self.client.is_model_ready("nope"))

    def test_a_batch_is_predicted_as_well_as_the_model_can(self):
        for model, expected in (("digits", 394), ("plain", 441)):
            result = self.client.infer(model, [self.input(PIXELS)])
            labels = result.as_numpy("output_label")
            self.assertEqual(labels.dtype, np.int64)
            self.assertEqual(labels.shape, (450,))
            self.assertEqual(int((labels == LABELS).sum()), expected)

    def test_the_maps_of_a_zipmap_come_as_one_tensor_of_probabilities(self):
        result = self.client.infer("digits", [self.input(PIXELS[:3])])
        probabilities = result.as_numpy("output_probability")
        self.assertEqual(probabilities.dtype, np.float32)
        self.assertEqual(probabilities.shape, (3, 10))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(axis=1), result.as_numpy("output_label"))

    def test_only_the_outputs_that_are_asked_for_come_back(self):
        wanted = [self.client_module.InferRequestedOutput("output_label")]
        result = self.client.infer("plain", [self.input(PIXELS[:1])], outputs=wanted)
        self.assertIsNotNone(result.as_numpy("output_label"))
        self.assertIsNone(result.as_numpy("output_probability"))

    def test_the_id_of_a_request_comes_back(self):
        result = self.client.infer("plain", [self.input(PIXELS[:1])], request_id="seven")
        response = result.get_response()
        self.assertEqual(response["id"] if isinstance(response, dict) else response.id, "seven")

    def test_a_version_can_be_named(self):
        result = self.client.infer("plain", [self.input(PIXELS[:1])], model_version="1")
        self.assertEqual(result.as_numpy("output_label").shape, (1,))

    def refused(self, *arguments, **settings):
        with self.assertRaises(InferenceServerException) as raised:
            self.client.infer(*arguments, **settings)
        return raised.exception

    def test_an_unknown_model_is_named_in_the_error(self):
        self.assertIn("nope", self.refused("nope", [self.input(PIXELS[:1])]).message())

    def test_an_unknown_version_is_refused(self):
        self.assertIn("9", self.refused("plain", [self.input(PIXELS[:1])], model_version="9").message())

    def test_an_unknown_input_is_named_in_the_error(self):
        self.assertIn("colours", self.refused("plain", [self.input(PIXELS[:1], name="colours")]).message())

    def test_a_wrong_type_says_what_was_expected_and_what_came(self):
        error = self.refused("plain", [self.input(PIXELS[:1].astype(np.int64), datatype="INT64")])
        for word in ("pixels", "FP32", "INT64"):
            self.assertIn(word, error.message())

    def test_a_wrong_shape_names_the_tensor(self):
        self.assertIn("pixels", self.refused("plain", [self.input(PIXELS[:1, :63].copy())]).message())

    def test_the_server_goes_on_after_bad_requests(self):
        self.refused("nope", [self.input(PIXELS[:1])])
        self.assertEqual(self.client.infer("plain", [self.input(PIXELS[:1])]).as_numpy("output_label").shape, (1,))


class Grpc(Both, unittest.TestCase):
    client_module = grpcclient

    def url(self):
        return node.grpc

    def test_metadata_names_the_tensors(self):
        metadata = self.client.get_model_metadata("digits")
        self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in metadata.inputs], [("pixels", "FP32", [-1, 64])])
        self.assertEqual(
            [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs],
            [("output_label", "INT64", [-1]), ("output_probability", "FP32", [-1, 10])],
        )
        self.assertEqual(list(metadata.versions), ["1"])
        self.assertEqual(self.client.get_server_metadata().name, "starling")

    def test_the_config_names_the_input(self):
        config = self.client.get_model_config("plain").config
        self.assertEqual(config.name, "plain")
        self.assertEqual(config.input[0].name, "pixels")

    def test_the_index_lists_both_models(self):
        index = self.client.get_model_repository_index()
        self.assertEqual({(m.name, m.version, m.state) for m in index.models}, {("digits", "1", "READY"), ("plain", "1", "READY")})

    def test_statistics_count_what_was_inferred(self):
        def count():
            stats = self.client.get_inference_statistics("plain").model_stats
            return sum(version.inference_count for version in stats)

        before = count()
        self.client.infer("plain", [self.input(PIXELS[:1])])
        self.assertEqual(count(), before + 1)

    def test_the_answer_says_which_version_and_epoch_served_it(self):
        parameters = self.client.infer("digits", [self.input(PIXELS[:1])]).get_response().parameters
        self.assertEqual(parameters["starling_version"].string_param, "v1")
        for name in ("starling_decision", "starling_epoch", "starling_node", "starling_sticky"):
            self.assertIn(name, parameters)

    def test_a_stream_answers_each_request_in_turn(self):
        answers = []
        self.client.start_stream(lambda result, error: answers.append((result, error)))
        for position in range(5):
            self.client.async_stream_infer("plain", [self.input(PIXELS[position : position + 1])], request_id=str(position))
        self.client.stop_stream()
        self.assertEqual([error for _, error in answers], [None] * 5)
        self.assertEqual([result.get_response().id for result, _ in answers], ["0", "1", "2", "3", "4"])

    def test_codes_are_those_of_the_protocol(self):
        self.assertEqual(self.refused("nope", [self.input(PIXELS[:1])]).status(), "StatusCode.NOT_FOUND")
        self.assertEqual(
            self.refused("plain", [self.input(PIXELS[:1, :63].copy())]).status(), "StatusCode.INVALID_ARGUMENT"
        )


class Rest(Both, unittest.TestCase):
    client_module = httpclient

    def url(self):
        return node.rest

    def test_metadata_names_the_tensors(self):
        metadata = self.client.get_model_metadata("digits")
        self.assertEqual(metadata["inputs"], [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}])
        self.assertEqual([output["name"] for output in metadata["outputs"]], ["output_label", "output_probability"])
        self.assertEqual(metadata["versions"], ["1"])
        self.assertEqual(self.client.get_server_metadata()["name"], "starling")

    def test_the_config_names_the_input(self):
        self.assertEqual(self.client.get_model_config("plain")["input"][0]["name"], "pixels")

    def test_the_index_lists_both_models(self):
        index = self.client.get_model_repository_index()
        self.assertEqual({(m["name"], m["state"]) for m in index}, {("digits", "READY"), ("plain", "READY")})

    def test_statistics_count_what_was_inferred(self):
        def count():
            stats = self.client.get_inference_statistics("plain")["model_stats"]
            return sum(version["inference_count"] for version in stats)

        before = count()
        self.client.infer("plain", [self.input(PIXELS[:1])])
        self.assertEqual(count(), before + 1)

    def test_json_tensors_give_the_same_labels_as_binary_ones(self):
        as_json = httpclient.InferInput("pixels", [8, 64], "FP32")
        as_json.set_data_from_numpy(PIXELS[:8], binary_data=False)
        wanted = [httpclient.InferRequestedOutput("output_label", binary_data=False)]
        labels = self.client.infer("plain", [as_json], outputs=wanted).as_numpy("output_label")
        binary = self.client.infer("plain", [self.input(PIXELS[:8])]).as_numpy("output_label")
        np.testing.assert_array_equal(labels, binary)

    def test_gzip_in_both_directions_is_understood(self):
        result = self.client.infer(
            "plain",
            [self.input(PIXELS[:8])],
            request_compression_algorithm="gzip",
            response_compression_algorithm="gzip",
        )
        self.assertEqual(result.as_numpy("output_label").shape, (8,))


class PlainHttp(unittest.TestCase):
    """What curl would send."""

    def send(self, path, body=None, url=None):
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{url or node.rest}{path}", data=data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def infer(self, model, tensor):
        status, body = self.send(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        return status, json.loads(body)

    def pixels(self, **changes):
        return {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": PIXELS[0].tolist(), **changes}

    def test_health_answers_200(self):
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
            self.assertEqual(self.send(path)[0], 200, path)
        for path in ("/livez", "/readyz"):
            self.assertEqual(self.send(path, url=node.metrics)[0], 200, path)

    def test_a_prediction_in_json(self):
        status, answer = self.infer("digits", self.pixels())
        self.assertEqual(status, 200)
        self.assertEqual(answer["model_name"], "digits")
        self.assertEqual(answer["parameters"]["starling_version"], "v1")
        label = next(output for output in answer["outputs"] if output["name"] == "output_label")
        self.assertEqual((label["datatype"], label["shape"]), ("INT64", [1]))

    def test_nested_data_is_read_like_flat_data(self):
        status, answer = self.infer("plain", self.pixels(data=[PIXELS[0].tolist()]))
        self.assertEqual(status, 200)
        self.assertEqual(answer["outputs"][0]["data"], self.infer("plain", self.pixels())[1]["outputs"][0]["data"])

    def test_bad_requests_get_the_protocols_error_object(self):
        for tensor, words in (
            (self.pixels(datatype="INT64"), ("pixels", "FP32", "INT64")),
            (self.pixels(shape=[1, 63]), ("pixels",)),
            (self.pixels(data=[1.0, 2.0]), ("pixels",)),
            (self.pixels(name="colours"), ("colours",)),
        ):
            status, answer = self.infer("plain", tensor)
            self.assertEqual(status, 400, answer)
            for word in words:
                self.assertIn(word, answer["error"])

    def test_an_unknown_model_is_404_and_bad_json_is_400(self):
        status, answer = self.infer("nope", self.pixels())
        self.assertEqual(status, 404)
        self.assertIn("nope", answer["error"])
        status, body = self.send("/v2/models/plain/infer", b"{not json")
        self.assertEqual(status, 400)
        self.assertIn("error", json.loads(body))

    def test_metrics_count_requests(self):
        self.infer("plain", self.pixels())
        status, body = self.send("/metrics", url=node.metrics)
        self.assertEqual(status, 200)
        self.assertIn(b"starling_", body)
        self.assertIn(b'model="plain"', body)


if __name__ == "__main__":
    unittest.main()
