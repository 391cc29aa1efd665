"""Ask a model server: REST with JSON, gRPC with TensorFlow's messages.

Source: tensorflow/serving, g3doc/api_rest.md and tensorflow_serving/apis/prediction_service.proto.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed
from kit.need import need
from kit.serving import messages


def ask_rest(address: str, model: str, feeds: Mapping[str, np.ndarray], *, signature: str = "serving_default",
             version: int | None = None, timeout: float = 60) -> dict[str, np.ndarray]:
    """Ask through REST, in the columnar form.

    Args:
        address: ``host:port`` of the REST port.
        model: its name on the server.
        feeds: input name -> array, as the signature takes them.
        signature: which one.
        version: which one; None for the newest.
        timeout: seconds.

    Returns:
        Output name -> array, in float32 or int64: JSON does not tell types. A single output is called ``outputs``, for
        the server leaves its name out.

    Raises:
        ToolFailed: no answer, or the server's own words when it refuses.
    """
    numbered = f"/versions/{version}" if version is not None else ""
    body = json.dumps({"signature_name": signature, "inputs": {name: np.asarray(a).tolist()
                                                               for name, a in feeds.items()}}).encode()
    told = _http(f"http://{address}/v1/models/{model}{numbered}:predict", timeout, body)
    found = told.get("outputs")
    if found is None:
        raise ToolFailed(f"The server at {address} answered without outputs.", remedy="check that the address is the "
                         "REST port of a TensorFlow Serving", detail=json.dumps(told)[:2000])
    named = found if isinstance(found, dict) else {"outputs": found}
    return {name: _numbers(values) for name, values in named.items()}


def ask_grpc(address: str, model: str, feeds: Mapping[str, np.ndarray], *, signature: str = "serving_default",
             version: int | None = None, timeout: float = 60) -> dict[str, np.ndarray]:
    """Ask through gRPC; arguments and errors as ``ask_rest``.

    Returns:
        Output name -> array, bit for bit as the server computed it.

    Raises:
        MissingTool: grpcio is not installed.
    """
    grpc = need("grpc", to="ask a model server through gRPC", extra="tensorflow")
    kind = messages.message("tensorflow.serving.PredictResponse")
    size = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=size) as channel:
        call = channel.unary_unary(messages.PREDICT, request_serializer=lambda asked: asked.SerializeToString(),
                                   response_deserializer=kind.FromString)
        try:
            return messages.answers(call(messages.request(model, feeds, signature=signature, version=version),
                                         timeout=timeout))
        except grpc.RpcError as error:
            raise _refused(address, f"{error.code().name}: {error.details()}") from error


def state(address: str, model: str, timeout: float = 5) -> dict[int, str]:
    """Version -> its state on the server, such as ``AVAILABLE``; errors as ``ask_rest``."""
    told = _http(f"http://{address}/v1/models/{model}", timeout)
    return {int(one["version"]): one["state"] for one in told.get("model_version_status", ())}


def _http(url: str, timeout: float, body: bytes | None = None) -> dict[str, Any]:
    address = url.split("/")[2]
    asked = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a model server is not behind a proxy
    try:
        with opener.open(asked, timeout=timeout) as answer:
            told = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise _refused(address, _words(text)) from error
    except (OSError, ValueError) as error:
        raise ToolFailed(f"No model server answers at {address}: {error}.",
                         remedy="check that it runs, and its REST port (--rest_api_port)") from error
    if not isinstance(told, dict):
        raise BadInput(f"What answers at {address} is no model server.", remedy="check the port")
    return told


def _words(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def _refused(address: str, words: str) -> ToolFailed:
    return ToolFailed(f"The model server at {address} refuses: {words[:500]}",
                      remedy="compare name, version, signature, shapes and types with what kit.compile wrote")


def _numbers(values: Any) -> np.ndarray:
    found = np.asarray(values)
    return found.astype(np.float32) if found.dtype == np.float64 else found
