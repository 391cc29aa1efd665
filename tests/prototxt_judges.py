"""Messages for protobuf's own text parser: the judge of whether what we write is protobuf text with known fields.

AIPP's message is built from the carried facts; AMCT's from the fields that its documents list.
"""

from __future__ import annotations

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from kit.targets.ascend import facts


@functools.cache
def _message():
    file = descriptor_pb2.FileDescriptorProto(name="aipp_test.proto", package="kit_test", syntax="proto2")
    params = file.message_type.add(name="AippOpParams")
    field = descriptor_pb2.FieldDescriptorProto
    for number, (key, entry) in enumerate(facts("aipp")["keys"].items(), 1):
        kind = {"int": field.TYPE_INT32, "float": field.TYPE_FLOAT, "bool": field.TYPE_BOOL,
                "string": field.TYPE_STRING, "enum": field.TYPE_ENUM}[entry["kind"]]
        made = params.field.add(name=key, number=number, type=kind, label=field.LABEL_REPEATED
                                if entry.get("repeated") or entry.get("once") else field.LABEL_OPTIONAL)
        if entry["kind"] == "enum":
            values = params.enum_type.add(name=f"Of_{key}")
            for at, value in enumerate(["undefined_" + key, *entry["values"]]):
                values.value.add(name=value, number=at)
            made.type_name = f".kit_test.AippOpParams.Of_{key}"
    whole = file.message_type.add(name="InsertNewOps")
    whole.field.add(name="aipp_op", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
                    type_name=".kit_test.AippOpParams")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kit_test.InsertNewOps"))


def protobuf_takes(text: str):
    """The parsed AIPP message; fails where protobuf's parser would."""
    return text_format.Parse(text, _message()())


_AMCT = {
    "AMCTConfig": {"batch_num": "uint32", "version": "int32", "activation_offset": "bool", "joint_quant": "bool",
                   "skip_layers": "string*", "skip_layer_types": "string*", "do_fusion": "bool",
                   "skip_fusion_layers": "string*", "common_config": "CalibrationConfig",
                   "override_layer_types": "OverrideLayerType*", "override_layer_configs": "OverrideLayer*"},
    "CalibrationConfig": {"arq_quantize": "ARQuantize", "ifmr_quantize": "FMRQuantize", "weight_compress_only": "bool"},
    "OverrideLayerType": {"layer_type": "string", "calibration_config": "CalibrationConfig"},
    "OverrideLayer": {"layer_name": "string", "calibration_config": "CalibrationConfig"},
    "ARQuantize": {"channel_wise": "bool", "asymmetric": "bool", "quant_bits": "uint32"},
    "FMRQuantize": {"search_range_start": "float", "search_range_end": "float", "search_step": "float",
                    "max_percentile": "float", "min_percentile": "float", "asymmetric": "bool"},
}


@functools.cache
def _amct():
    file = descriptor_pb2.FileDescriptorProto(name="amct_test.proto", package="kit_amct", syntax="proto2")
    field = descriptor_pb2.FieldDescriptorProto
    for message, fields in _AMCT.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in _AMCT:
                made.field.add(name=name, number=number, label=label, type=field.TYPE_MESSAGE,
                               type_name=f".kit_amct.{kind}")
            else:
                made.field.add(name=name, number=number, label=label, type=getattr(field, f"TYPE_{kind.upper()}"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kit_amct.AMCTConfig"))


def amct_takes(text: str):
    """The parsed AMCT configuration; fails where protobuf's parser would."""
    return text_format.Parse(text, _amct()())
