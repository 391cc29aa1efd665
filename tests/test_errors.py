import pickle

import pytest

from kit import errors

EVERY = [errors.KitError, *errors.KitError.__subclasses__()]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_keeps_its_remedy_through_pickling(kind):
    back = pickle.loads(pickle.dumps(kind("What happened.", remedy="do this", detail="long")))
    assert (type(back), back.what, back.remedy, back.detail) == (kind, "What happened.", "do this", "long")
    assert back.__notes__ == ["Try: do this"]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_no_error_without_a_remedy(kind):
    with pytest.raises(TypeError, match="remedy"):
        kind("What happened.")


def test_an_unknown_name_brings_the_closest_ones():
    error = errors.unknown("node", "Conv_31", ["Conv_13", "Conv_3", "Relu_1"], "net.onnx")
    assert "'Conv_31' in net.onnx" in error.what
    assert "Conv_3" in error.remedy
    assert "Relu_1" in error.detail


def test_a_name_like_nothing_lists_the_choices():
    assert "choose one of: fast, slow" in errors.unknown("mode", "zzz", ["slow", "fast"]).remedy
