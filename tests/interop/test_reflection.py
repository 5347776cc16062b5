"""Reflection as grpcurl does it: list the services, fetch their descriptors, call a method without generated code.

And what is found so must be the contract that tritonclient was generated from, field by field."""

import unittest

import grpc
import numpy as np
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2

from node import MODELS, Node

SERVICE = "inference.GRPCInferenceService"


def setUpModule():
    global node
    node = Node()
    unittest.addModuleCleanup(node.stop)
    node.serve("plain", "v2", MODELS / "digits-v2.onnx")


class Reflection(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(node.grpc)
        self.addCleanup(self.channel.close)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, of, method, **fields):
        found = self.pool.FindServiceByName(of).FindMethodByName(method)
        request_class = message_factory.GetMessageClass(found.input_type)
        answer_class = message_factory.GetMessageClass(found.output_type)
        unary = self.channel.unary_unary(
            f"/{of}/{method}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=answer_class.FromString,
        )
        return unary(request_class(**fields), timeout=30)

    def test_every_service_is_listed(self):
        services = set(self.database.get_services())
        self.assertLessEqual({SERVICE, "starling.admin.v1.Admin", "grpc.health.v1.Health"}, services)

    def test_a_model_is_called_without_generated_code(self):
        pixels = np.fromfile(MODELS / "held_back.bin", dtype=np.uint8)[:64].astype(np.float32)
        tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 64]}
        answer = self.call(
            SERVICE, "ModelInfer", model_name="plain", inputs=[tensor], raw_input_contents=[pixels.tobytes()]
        )
        self.assertEqual(answer.model_name, "plain")
        self.assertEqual(answer.outputs[0].name, "output_label")
        self.assertEqual(answer.parameters["starling_version"].string_param, "v2")

    def test_health_is_serving_for_the_server_and_the_service(self):
        for service in ("", SERVICE):
            self.assertEqual(self.call("grpc.health.v1.Health", "Check", service=service).status, 1)
        with self.assertRaises(grpc.RpcError) as raised:
            self.call("grpc.health.v1.Health", "Check", service="nope")
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_health_can_be_watched(self):
        method = self.pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Watch")
        request_class = message_factory.GetMessageClass(method.input_type)
        watch = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=request_class.SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        states = watch(request_class(service=SERVICE), timeout=30)
        self.assertEqual(next(states).status, 1)
        states.cancel()

    def test_methods_and_field_numbers_are_those_of_triton(self):
        ours = self.pool.FindServiceByName(SERVICE)
        theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        self.assertEqual({m.name for m in ours.methods}, {m.name for m in theirs.methods})
        compared = set()
        for method in theirs.methods:
            mine = ours.FindMethodByName(method.name)
            self.assertEqual(mine.client_streaming, method.client_streaming, method.name)
            self.assertEqual(mine.server_streaming, method.server_streaming, method.name)
            self.assertSameFields(mine.input_type, method.input_type, compared)
            self.assertSameFields(mine.output_type, method.output_type, compared)
        self.assertGreater(len(compared), 50)

    # Not Triton's, and in messages that it leaves empty or where it has no field of that number.
    OURS_ALONE = {
        "inference.ModelMetadataResponse.properties",
        "inference.RepositoryModelLoadResponse.model_name",
        "inference.RepositoryModelLoadResponse.isLoaded",
        "inference.RepositoryModelUnloadResponse.model_name",
        "inference.RepositoryModelUnloadResponse.isUnloaded",
    }

    def assertSameFields(self, mine, theirs, compared):
        self.assertEqual(mine.full_name, theirs.full_name)
        if mine.full_name in compared:
            return
        compared.add(mine.full_name)
        numbers = {field.number for field in theirs.fields}
        for field in mine.fields:
            if field.full_name in self.OURS_ALONE:
                self.assertNotIn(field.number, numbers, field.full_name)
                continue
            known = theirs.fields_by_name.get(field.name)
            self.assertIsNotNone(known, field.full_name)
            self.assertEqual(
                (field.number, field.type, field.is_repeated), (known.number, known.type, known.is_repeated), field.full_name
            )
            if field.message_type is not None:
                self.assertSameFields(field.message_type, known.message_type, compared)
            if field.enum_type is not None:
                values = {value.name: value.number for value in field.enum_type.values}
                self.assertEqual(values, {v.name: v.number for v in known.enum_type.values if v.name in values})


if __name__ == "__main__":
    unittest.main()
