"""KServe's inference clients, unmodified, over gRPC and REST."""

import logging
import unittest

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from node import MODELS, Node

PIXELS = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8).reshape(-1, 65)[:8, :64].astype(np.float32)
LABELS = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8).reshape(-1, 65)[:8, 64].tolist()


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("plain", "v2", MODELS / "digits-v2.onnx")
    # The client logs every failure with its whole stack; the tests make some on purpose.
    logging.disable(logging.ERROR)
    unittest.addModuleCleanup(logging.disable, logging.NOTSET)


def request(model="plain", raw=True):
    pixels = InferInput("pixels", list(PIXELS.shape), "FP32")
    pixels.set_data_from_numpy(PIXELS, binary_data=raw)
    return InferRequest(model_name=model, infer_inputs=[pixels], request_id="seven")


def labels(response):
    output = next(output for output in response.outputs if output.name == "output_label")
    return output.as_numpy().tolist()


class Grpc(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = InferenceGRPCClient(node.grpc)
        self.addAsyncCleanup(self.client.close)

    async def test_the_server_and_the_model_are_live_and_ready(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("plain"))
        self.assertFalse(await self.client.is_model_ready("nope"))

    async def test_raw_and_typed_requests_are_answered_in_kind(self):
        for raw in (True, False):
            response = await self.client.infer(request(raw=raw))
            self.assertEqual((response.model_name, response.id), ("plain", "seven"))
            self.assertEqual(labels(response), LABELS)

    async def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(grpc.RpcError) as raised:
            await self.client.infer(request("nope"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    async def test_load_is_understood_in_the_wire_form_of_kserve(self):
        # Trap (e): its model_name stands where Triton has repository_name.
        async with grpc.aio.insecure_channel(node.grpc) as channel:
            stub = GRPCInferenceServiceStub(channel)
            loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="plain"))
            self.assertEqual((loaded.model_name, loaded.isLoaded), ("plain", True))
            with self.assertRaises(grpc.RpcError) as raised:
                await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nope"))
            self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
            with self.assertRaises(grpc.RpcError) as raised:
                await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="plain"))
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
            self.assertIn("starling model delete", raised.exception.details())


class Rest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = InferenceRESTClient(RESTConfig(protocol="v2"))
        self.addAsyncCleanup(self.client.close)
        self.url = f"http://{node.rest}"

    async def test_the_server_and_the_model_are_live_and_ready(self):
        # Trap (d): the client reads the bodies.
        self.assertTrue(await self.client.is_server_live(self.url))
        self.assertTrue(await self.client.is_server_ready(self.url))
        self.assertTrue(await self.client.is_model_ready(self.url, "plain"))
        self.assertFalse(await self.client.is_model_ready(self.url, "nope"))

    async def test_binary_and_json_requests_are_answered(self):
        for raw in (True, False):
            response = await self.client.infer(self.url, request(raw=raw), model_name="plain")
            self.assertEqual((response.model_name, response.id), ("plain", "seven"))
            self.assertEqual(labels(response), LABELS)

    async def test_an_unknown_model_is_404(self):
        with self.assertRaises(httpx.HTTPStatusError) as raised:
            await self.client.infer(self.url, request("nope"), model_name="nope")
        self.assertEqual(raised.exception.response.status_code, 404)
        self.assertIn("nope", raised.exception.response.json()["error"])


if __name__ == "__main__":
    unittest.main()
