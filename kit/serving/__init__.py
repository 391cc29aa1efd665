"""A SavedModel behind TensorFlow Serving: the messages of its protocol, a client, and a server where one is installed.

``kit.serving.serve(compiled)`` starts ``tensorflow_model_server`` and asks it through REST and gRPC. The client needs
neither TensorFlow nor tensorflow-serving-api.
"""

from kit.serving.client import ask_grpc, ask_rest, state
from kit.serving.server import Server, find_server, serve

__all__ = ["Server", "ask_grpc", "ask_rest", "find_server", "serve", "state"]
