"""What every test may use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No example may fail for being slow: the machines that run this are shared.
settings.register_profile("kit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

sys.path.insert(0, str(Path(__file__).parent))  # so that `helpers` can be imported here and in workers


@pytest.fixture
def tiny_onnx(tmp_path):
    """A Conv-BatchNorm-Relu net on x [N, 3, H, W] with seeded weights, opset 17."""
    from tiny import conv_net

    return conv_net(tmp_path / "tiny.onnx")


@pytest.fixture
def array_file(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(6, dtype=np.float32))
    return path
