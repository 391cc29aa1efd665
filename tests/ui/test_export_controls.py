"""What the export's panel shows: a control for every option, in the words of the options."""

from kit.exporting import ExportOptions
from kit.options import fields
from kit.ui.controls import Control, label

CONTROLS = {field.name: Control(field, field.default) for field in fields(ExportOptions)}


def test_every_option_has_a_control_that_starts_at_the_default():
    for name, control in CONTROLS.items():
        assert control.value == getattr(ExportOptions(), name), name
        assert control.error is None


def test_layouts_and_framework_are_lists_and_the_signature_a_text():
    assert label("input_layout") == "Input layout"
    for name, choices in (("input_layout", ["as is", "NCHW", "NHWC"]), ("output_layout", ["as is", "NCHW", "NHWC"]),
                          ("framework", ["auto", "paddle", "tensorflow", "torch"])):
        offered = CONTROLS[name].widget.options
        assert [option[1] if isinstance(option, tuple) else option for option in offered] == choices
    control = Control({field.name: field for field in fields(ExportOptions)}["signature"], "serving_default")
    control.widget.value = "half"
    assert control.value == "half"


def test_inputs_with_commas_inside_are_read_whole():
    control = Control({field.name: field for field in fields(ExportOptions)}["inputs"], ())
    control.value = ("x:float32[N,3,H,W]", "y:float32[N,2]")
    assert control.value == ("x:float32[N,3,H,W]", "y:float32[N,2]")
