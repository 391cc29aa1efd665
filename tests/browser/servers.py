"""What the tests that start a server share."""

import subprocess


def stop(server: subprocess.Popen) -> None:
    """End a server; one that does not listen is killed."""
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
