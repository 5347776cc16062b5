"""The asyncio clients of tritonclient, unmodified: grpc.aio and http.aio."""

import asyncio
import unittest

import numpy as np
import tritonclient.grpc.aio as grpcclient
import tritonclient.http.aio as httpclient
from tritonclient.utils import InferenceServerException

from node import MODELS, Node

HELD_BACK = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8).reshape(-1, 65)
PIXELS = HELD_BACK[:, :64].astype(np.float32)


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("plain", "v2", MODELS / "digits-v2.onnx")


class Both:
    client_module = None

    async def asyncSetUp(self):
        self.client = self.client_module.InferenceServerClient(self.url())
        self.addAsyncCleanup(self.client.close)

    def pixels(self, rows):
        tensor = self.client_module.InferInput("pixels", [rows, 64], "FP32")
        tensor.set_data_from_numpy(PIXELS[:rows])
        return tensor

    async def test_the_server_and_the_model_are_live_and_ready(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("plain"))
        self.assertFalse(await self.client.is_model_ready("nope"))

    async def test_many_requests_at_once_are_answered(self):
        requests = [self.client.infer("plain", [self.pixels(rows)], request_id=str(rows)) for rows in range(1, 33)]
        results = await asyncio.gather(*requests)
        self.assertEqual([result.as_numpy("output_label").shape for result in results], [(rows,) for rows in range(1, 33)])

    async def test_an_unknown_model_is_named_in_the_error(self):
        with self.assertRaises(InferenceServerException) as raised:
            await self.client.infer("nope", [self.pixels(1)])
        self.assertIn("'nope' is not found", raised.exception.message())

    async def test_metadata_config_statistics_and_index_are_read(self):
        # The HTTP client takes compressed answers, and decompresses those of predictions only.
        self.assertTrue(await self.client.get_server_metadata())
        self.assertTrue(await self.client.get_model_metadata("plain"))
        self.assertTrue(await self.client.get_model_config("plain"))
        self.assertTrue(await self.client.get_inference_statistics("plain"))
        self.assertTrue(await self.client.get_model_repository_index())

    async def test_load_is_a_success_and_unload_says_what_to_do(self):
        await self.client.load_model("plain")
        with self.assertRaises(InferenceServerException) as raised:
            await self.client.unload_model("plain")
        self.assertIn("starling model delete plain", raised.exception.message())


class Grpc(Both, unittest.IsolatedAsyncioTestCase):
    client_module = grpcclient

    def url(self):
        return node.grpc

    async def test_a_stream_answers_each_request_in_turn(self):
        async def requests():
            for number in range(5):
                yield {"model_name": "plain", "inputs": [self.pixels(number + 1)], "request_id": str(number)}

        seen = []
        async for result, error in self.client.stream_infer(requests()):
            self.assertIsNone(error)
            seen.append((result.get_response().id, result.as_numpy("output_label").shape))
        self.assertEqual(seen, [(str(number), (number + 1,)) for number in range(5)])


class Rest(Both, unittest.IsolatedAsyncioTestCase):
    client_module = httpclient

    def url(self):
        return node.rest


if __name__ == "__main__":
    unittest.main()
