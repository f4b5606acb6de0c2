"""The messages of the Open Inference Protocol's gRPC service, made from their fields when this module is imported.

The numbers of the fields are those of the published protocol (KServe's ``open_inference_grpc.proto``, Triton's
``grpc_service.proto``). They are in a descriptor pool of their own: a client's generated messages may be in the same
process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

#: Messages and their fields: number, type, name. "*" is repeated, "map" a map from strings to InferParameter, and "?" a
#: member of the one oneof.
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 bool ready",
    "ModelReadyRequest": "1 string name, 2 string version",
    "ModelReadyResponse": "1 bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 string name, 2 string version, 3 string* extensions",
    "ModelMetadataRequest": "1 string name, 2 string version",
    "ModelMetadataResponse.TensorMetadata": "1 string name, 2 string datatype, 3 int64* shape",
    "ModelMetadataResponse": "1 string name, 2 string* versions, 3 string platform, "
    "4 ModelMetadataResponse.TensorMetadata* inputs, 5 ModelMetadataResponse.TensorMetadata* outputs",
    "InferParameter": "1 bool? bool_param, 2 int64? int64_param, 3 string? string_param, 4 double? double_param, "
    "5 uint64? uint64_param",
    "InferTensorContents": "1 bool* bool_contents, 2 int32* int_contents, 3 int64* int64_contents, "
    "4 uint32* uint_contents, 5 uint64* uint64_contents, 6 float* fp32_contents, 7 double* fp64_contents, "
    "8 bytes* bytes_contents",
    "ModelInferRequest.InferInputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 map parameters, "
    "5 InferTensorContents contents",
    "ModelInferRequest.InferRequestedOutputTensor": "1 string name, 2 map parameters",
    "ModelInferRequest": "1 string model_name, 2 string model_version, 3 string id, 4 map parameters, "
    "5 ModelInferRequest.InferInputTensor* inputs, 6 ModelInferRequest.InferRequestedOutputTensor* outputs, "
    "7 bytes* raw_input_contents",
    "ModelInferResponse.InferOutputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 map parameters, "
    "5 InferTensorContents contents",
    "ModelInferResponse": "1 string model_name, 2 string model_version, 3 string id, 4 map parameters, "
    "5 ModelInferResponse.InferOutputTensor* outputs, 6 bytes* raw_output_contents",
    "ModelStreamInferResponse": "1 string error_message, 2 ModelInferResponse infer_response",
}

Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="fastrnn/inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):  # a message before those in it
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        for text in filter(None, MESSAGES[name].split(", ")):
            _add_field(made[name], name, *text.split())
    return file


def _add_field(message: Any, owner: str, number: str, kind: str, name: str) -> None:
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if kind == "map":
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, f"{owner}.{entry.name}", "1", "string", "key")
        _add_field(entry, f"{owner}.{entry.name}", "2", "InferParameter", "value")
        kind = f"{owner}.{entry.name}*"
    if kind.endswith("*"):
        field.label = Field.LABEL_REPEATED
    if kind.endswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    kind = kind.rstrip("*?")
    if kind[0].islower():
        field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in MESSAGES
        if "." not in name
    }


#: The classes of the messages, by name.
CLASSES = _classes()
