"""Which framework a factory's model is of, told without running it."""

import sys

import pytest

from kit.errors import BadInput
from kit.exporting.factories import framework_of
from kit.exporting.specs import LayerSource


@pytest.mark.parametrize(("text", "framework"), [
    ("import keras", "tensorflow"), ("from tensorflow import keras", "tensorflow"),
    ("def net():\n    from keras.layers import Dense\n", "tensorflow"), ("import paddle.nn as nn", "paddle"),
    ("x = 3", "paddle"), ("this is not Python", "paddle"), ("import os", "paddle"),
])
def test_the_imports_of_its_module_tell(text, framework, tmp_path):
    (tmp_path / "nets.py").write_text(text)
    assert framework_of(LayerSource(str(tmp_path / "nets.py"), "net")) == framework


def test_a_dotted_module_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "mine" / "nets.py").write_text("import keras\nraise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert framework_of(LayerSource("mine.nets", "net")) == "tensorflow"
    assert "mine" not in sys.modules
    assert framework_of(LayerSource("nowhere.nets", "net")) == "paddle"


def test_both_is_a_question(tmp_path):
    (tmp_path / "nets.py").write_text("import keras, paddle")
    with pytest.raises(BadInput, match="imports Paddle and TensorFlow") as caught:
        framework_of(LayerSource(str(tmp_path / "nets.py"), "net"))
    assert "framework=" in caught.value.remedy
