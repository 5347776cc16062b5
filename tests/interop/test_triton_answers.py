"""The requests that a real Triton answered, sent to Starling: equal where we mean to agree, else as docs/protocol.md says."""

import json
import re
import shlex
import unittest
from pathlib import Path

import onnx_file
from node import Node

ANSWERS = Path(__file__).parent / "triton-answers"


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    model = onnx_file.identity([("INPUT0", "OUTPUT0", "FP32", [-1, 16])])
    node.serve("identity", "v1", model, "--max-batch", "8")


class Recorded:
    """One file: the request, and what Triton answered."""

    def __init__(self, name):
        head, _, rest = (ANSWERS / f"{name}.txt").read_bytes().partition(b"\n")
        command = head.decode().removeprefix("# curl ")
        command, _, self.body = command.partition(" -d ")
        words = shlex.split(command)
        self.method = words[words.index("-X") + 1] if "-X" in words else "GET"
        url = next(word for word in words if word.startswith("http"))
        self.path = re.sub(r"^http://[^/]+", "", url)
        answer_head, _, content = rest.partition(b"\r\n\r\n")
        status_line, *lines = answer_head.decode().splitlines()
        self.status = int(status_line.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.content = content[: int(self.headers["content-length"])]

    def json(self):
        return json.loads(self.content)

    def ask_starling(self):
        body = self.body.encode() if self.body else None
        return node.ask(self.method, self.path, body, {"Content-Type": "application/json"} if body else {})


class Comparing(unittest.TestCase):
    def ask(self, name):
        recorded = Recorded(name)
        status, headers, body = recorded.ask_starling()
        return recorded, status, headers, body

    def assertSameError(self, name, begins_with=None):
        recorded, status, _, body = self.ask(name)
        self.assertEqual(status, recorded.status, body)
        said = json.loads(body)["error"]
        # Triton names the request where the client gave no id; Starling does so in x-request-id.
        expected = recorded.json()["error"].removeprefix("[request id: <id_unknown>] ")
        if begins_with is not None:
            self.assertTrue(expected.startswith(begins_with), expected)
            expected = begins_with
        self.assertTrue(said.startswith(expected), f"{said!r} does not begin with {expected!r}")

    def without_parameters(self, answer):
        """What Starling adds: which version was chosen, and why."""
        self.assertEqual(answer["parameters"]["starling_version"], "v1")
        return {key: value for key, value in answer.items() if key != "parameters"}


class Agreements(Comparing):
    def test_a_prediction_in_json_is_answered_alike(self):
        recorded, status, headers, body = self.ask("infer_ok")
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        self.assertNotIn("inference-header-content-length", headers)
        self.assertEqual(self.without_parameters(json.loads(body)), recorded.json())

    def test_a_binary_answer_is_alike_to_the_byte_behind_its_json(self):
        recorded, status, headers, body = self.ask("infer_binary_out")
        self.assertEqual((status, headers["content-type"]), (200, "application/octet-stream"))
        theirs = int(recorded.headers["inference-header-content-length"])
        ours = int(headers["inference-header-content-length"])
        self.assertEqual(self.without_parameters(json.loads(body[:ours])), json.loads(recorded.content[:theirs]))
        self.assertEqual(body[ours:], recorded.content[theirs:])

    def test_a_quiet_answer_has_the_very_bytes_of_triton(self):
        for name in ("infer_ok", "infer_binary_out"):
            recorded = Recorded(name)
            headers = {"x-starling-quiet": "true"}
            status, answered, body = node.ask("POST", recorded.path, recorded.body.encode(), headers)
            self.assertEqual((status, body), (200, recorded.content))
            self.assertEqual(
                answered.get("inference-header-content-length"), recorded.headers.get("inference-header-content-length")
            )

    def test_metadata_is_alike_but_for_the_platform(self):
        recorded, status, _, body = self.ask("model_metadata")
        self.assertEqual(status, 200)
        ours = json.loads(body)
        self.assertEqual(ours.pop("platform"), "onnxruntime_onnx")
        ours.pop("properties")
        theirs = recorded.json()
        theirs.pop("platform")
        self.assertEqual(ours, theirs)

    def test_the_config_has_what_clients_read(self):
        recorded, status, _, body = self.ask("model_config")
        self.assertEqual(status, 200)
        ours, theirs = json.loads(body), recorded.json()
        self.assertEqual(ours["backend"], "onnxruntime")
        for key in ("name", "max_batch_size", "input", "output", "batch_input", "batch_output"):
            self.assertEqual(ours[key], theirs[key], key)
        self.assertEqual(set(theirs) - set(ours), {"optimization"})
        self.assertLessEqual(set(ours["dynamic_batching"]), set(theirs["dynamic_batching"]))

    def test_statistics_have_the_same_keys_and_add_up(self):
        Recorded("infer_ok").ask_starling()
        for name in ("model_stats", "all_stats"):
            recorded, status, _, body = self.ask(name)
            self.assertEqual(status, 200)
            ours, theirs = json.loads(body)["model_stats"], recorded.json()["model_stats"]
            self.assertEqual(len(ours), 1)
            self.assertEqual(set(ours[0]), set(theirs[0]))
            self.assertEqual(set(ours[0]["inference_stats"]), set(theirs[0]["inference_stats"]))
            self.assertEqual(set(ours[0]["batch_stats"][0]), set(theirs[0]["batch_stats"][0]))
            self.assertEqual((ours[0]["name"], ours[0]["version"]), ("identity", "1"))
            stats = ours[0]["inference_stats"]
            parts = ("queue", "compute_input", "compute_infer", "compute_output")
            self.assertEqual(stats["success"]["ns"], sum(stats[part]["ns"] for part in parts))

    def test_the_index_is_the_same_bare_list(self):
        recorded, status, _, body = self.ask("index")
        self.assertEqual((status, json.loads(body)), (200, recorded.json()))

    def test_unknown_names_are_refused_in_the_same_words(self):
        for name in ("unknown_model", "bad_version", "unknown_input", "unknown_output"):
            with self.subTest(name):
                self.assertSameError(name)

    def test_wrong_types_and_shapes_are_refused_alike(self):
        self.assertSameError("bad_dtype")
        self.assertSameError("bad_shape", "unexpected shape for input 'INPUT0' for model 'identity'. Expected [-1,")

    def test_a_missing_input_is_400_and_named(self):
        recorded, status, _, body = self.ask("missing_input")
        self.assertEqual(status, recorded.status)
        self.assertIn("'INPUT0'", json.loads(body)["error"])

    def test_reserved_parameters_are_refused_with_the_same_status(self):
        recorded, status, _, body = self.ask("reserved_param")
        self.assertEqual(status, recorded.status)
        self.assertIn("triton_x", json.loads(body)["error"])

    def test_series_of_metrics_have_the_names_and_labels_of_triton(self):
        Recorded("infer_ok").ask_starling()
        _, _, body = node.ask("GET", "/metrics", port="metrics")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        ours = {line.rsplit(" ", 1)[0] for line in lines}
        theirs = (ANSWERS / "metrics.txt").read_text().splitlines()
        theirs = {line.rsplit(" ", 1)[0] for line in theirs if line.startswith("nv_inference_")}
        # Of the queue's length Starling has a series of its own.
        self.assertEqual(theirs - ours, {'nv_inference_pending_request_count{model="identity",version="1"}'})


class Differences(Comparing):
    """Each stands in docs/protocol.md, with its reason."""

    def test_wrong_json_is_the_clients_fault_400_where_triton_says_500(self):
        for name in ("bad_json", "bad_count"):
            recorded, status, _, body = self.ask(name)
            self.assertEqual((recorded.status, status), (500, 400), body)
            self.assertIn("error", json.loads(body))

    def test_health_has_a_body_where_triton_has_none(self):
        for name, expected in (
            ("health_ready", {"ready": True}),
            ("model_ready", {"name": "identity", "ready": True}),
        ):
            recorded, status, _, body = self.ask(name)
            self.assertEqual((recorded.status, recorded.content), (200, b""))
            self.assertEqual((status, json.loads(body)), (200, expected))

    def test_an_unknown_model_is_404_for_readiness_too_where_triton_says_400(self):
        recorded, status, _, body = self.ask("unknown_ready")
        self.assertEqual((recorded.status, status), (400, 404))
        self.assertEqual(json.loads(body)["error"], "Request for unknown model: 'nope' is not found")

    def test_a_wrong_method_is_405_as_json(self):
        recorded, status, headers, body = self.ask("wrong_method")
        self.assertEqual((recorded.status, status, headers["content-type"]), (405, 405, "application/json"))
        self.assertIn("GET", json.loads(body)["error"])

    def test_a_request_of_more_rows_than_a_run_may_have_is_split_where_triton_refuses_it(self):
        recorded, status, _, body = self.ask("batch_too_big")
        self.assertEqual((recorded.status, status), (400, 200), body)
        self.assertEqual(json.loads(body)["outputs"][0]["shape"], [9, 16])

    def test_loading_what_is_there_is_a_success_where_a_polling_triton_refuses_it(self):
        recorded, status, _, body = self.ask("load_refused")
        self.assertEqual((recorded.status, status, json.loads(body)), (503, 200, {}))

    def test_the_server_names_only_the_extensions_that_it_honours(self):
        recorded, status, _, body = self.ask("server_metadata")
        self.assertEqual(status, 200)
        ours, theirs = json.loads(body), recorded.json()
        self.assertEqual(set(ours), set(theirs))
        missing = set(theirs["extensions"]) - set(ours["extensions"])
        self.assertTrue(
            missing >= {"sequence", "system_shared_memory", "cuda_shared_memory", "trace", "logging"}, missing
        )
        self.assertLessEqual(set(ours["extensions"]), set(theirs["extensions"]))


if __name__ == "__main__":
    unittest.main()
