"""Models for lessons: they run, and each has the fault that it is named after."""

import numpy as np
import pytest

import kit
from kit.errors import BadInput
from kit.samples import generated
from kit.teach_models import _BROKEN, broken_model


@pytest.mark.parametrize("fault", _BROKEN)
def test_a_broken_model_runs_here_and_is_refused_for_ascend(fault, tmp_path):
    model = broken_model(tmp_path / "made" / f"{fault}.onnx", fault)
    with kit.open_runner(model) as run:
        feeds = generated(model.inputs, {spec.name: spec.shape for spec in model.inputs}, 0)
        assert all(np.isfinite(value).all() for value in run(feeds).values())
    audited = kit.audit(model, kit.AuditOptions(target="ascend310p3"), runs=tmp_path / "runs")
    assert audited.of("error") or audited.of("warning")


def test_an_unknown_fault_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(BadInput, match="no fault named 'box'") as caught:
        broken_model(tmp_path / "x.onnx", "box")
    assert "boxes" in caught.value.remedy
    assert not (tmp_path / "x.onnx").exists()
