"""A FAKE model server for the client: it speaks REST and gRPC as the documents of TensorFlow Serving say, and doubles.

It holds no model. The messages on its gRPC side are TensorFlow Serving's own field numbers, written here by hand from
the .proto files and not taken from the kit, so that a mistake in the kit's description would not agree with itself.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


@contextlib.contextmanager
def running(tensor_content: bool = True):
    """Yields ``(rest, grpc)`` addresses of a FAKE server with model ``net``, version 3, signature ``double``."""
    import grpc

    http = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, context: predict(request, context, tensor_content))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}", f"127.0.0.1:{port}"
    finally:
        server.stop(None)
        http.shutdown()


class Rest(BaseHTTPRequestHandler):
    """``GET /v1/models/net`` and ``POST /v1/models/net/versions/3:predict`` in the columnar form."""

    def do_GET(self):
        if self.path == "/v1/models/net":
            self.answer(200, {"model_version_status": [{"version": "3", "state": "AVAILABLE",
                                                        "status": {"error_code": "OK", "error_message": ""}}]})
        else:
            self.answer(404, {"error": f"Could not find any versions of model {self.path.rpartition('/')[2]}"})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/models/net/versions/3:predict":
            self.answer(404, {"error": "Servable not found for request: Specific(net, 4)"})
        elif asked["signature_name"] != "double":
            self.answer(400, {"error": f"Serving signature name: \"{asked['signature_name']}\" not found"})
        else:
            doubled = {f"{name}_doubled": (np.array(values) * 2).tolist() for name, values in asked["inputs"].items()}
            # A single output comes without its name.
            self.answer(200, {"outputs": doubled if len(doubled) > 1 else next(iter(doubled.values()))})

    def answer(self, code, told):
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def predict(request, context, tensor_content):
    """``PredictRequest`` bytes to ``PredictResponse`` bytes; float32 only."""
    import grpc

    fields = list(parse(request))
    spec = dict(parse(next(value for number, value in fields if number == 1)))
    if spec[1] != b"net" or spec[3] != b"double" or dict(parse(spec[2])) != {1: 3}:
        context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
    out = b""
    for number, value in fields:
        if number == 2:
            entry = dict(parse(value))
            shape, values = read(entry[2])
            out += piece(1, piece(1, entry[1] + b"_doubled") + piece(2, write(shape, values * 2, tensor_content)))
    return out


def read(tensor):
    """Shape and values of a float ``TensorProto`` with tensor_content."""
    fields = dict(parse(tensor))
    assert fields[1] == 1, "DT_FLOAT"
    shape = [dict(parse(dim)).get(1, 0) for number, dim in parse(fields[2]) if number == 2]
    return shape, np.frombuffer(fields[4], "<f4").reshape(shape)


def write(shape, values, tensor_content):
    """A float ``TensorProto``: in one piece, or packed value by value as the server does by default."""
    dims = b"".join(piece(2, b"\x08" + varint(side)) for side in shape)
    content = values.astype("<f4").tobytes()
    return b"\x08\x01" + piece(2, dims) + piece(4 if tensor_content else 5, content)


def parse(data):
    """Field number and value of each field: numbers for varints, bytes for the rest."""
    at = 0
    while at < len(data):
        tag, at = number_at(data, at)
        if tag & 7 == 0:
            value, at = number_at(data, at)
        elif tag & 7 == 2:
            size, at = number_at(data, at)
            value, at = data[at: at + size], at + size
        else:
            assert tag & 7 == 5
            value, at = struct.unpack("<f", data[at: at + 4])[0], at + 4
        yield tag >> 3, value


def number_at(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def piece(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value
