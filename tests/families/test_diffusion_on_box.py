"""The one file that draws on the box: Python 3.8 and numpy, made of the kit's own scheduler, alarms and sessions."""

import ast

import numpy as np
import pytest
from box_scripts import foreign, names_of, taken_twice, too_new
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from kit.ascend.box import box_script
from kit.families.diffusion_bundle import SCRIPT_PARTS
from kit.families.diffusion_likeness import psnr
from kit.families.diffusion_om_parts import PartProcess, likeness
from kit.runtimes.om_session import Failure

TEXT = box_script.script_text(SCRIPT_PARTS)
PICTURES = arrays(np.float32, (8, 8, 3), elements=some.floats(0, 1, width=32))


def test_it_is_python_3_8_and_imports_nothing_but_numpy_and_what_cann_brings():
    # The scheduler's refusal of a number of steps is the kit's; it was made when the bundle was.
    assert foreign(TEXT) == {"numpy", "acl", "ais_bench", "kit"}
    assert TEXT.count("from kit") == TEXT.count("from kit.errors import BadInput") == 1
    assert not too_new(TEXT), "these came after Python 3.8"


def test_no_part_takes_a_name_of_another_and_everything_is_in_it():
    assert not taken_twice(SCRIPT_PARTS)
    defined = set(names_of(ast.parse(TEXT)))
    assert {"Scheduler", "PictureWatch", "AclModel", "DrawBox", "Steps"} <= defined
    assert "python3 draw_on_box.py" in TEXT[:200]
    assert TEXT.rstrip().endswith("sys.exit(main())")


@given(PICTURES, PICTURES)
def test_the_likeness_of_two_pictures_is_the_psnr_that_the_kit_computes(one, other):
    assert likeness(one, other) == pytest.approx(psnr(one, other), abs=1e-4)


def test_equal_pictures_are_as_alike_as_can_be_and_broken_ones_not_at_all():
    picture = np.full((8, 8, 3), 0.5, np.float32)
    assert likeness(picture, picture) == 100
    assert likeness(picture, np.full_like(picture, np.nan)) == 0


STUB = '''
import os
class Meta:
    def __init__(self, name): self.name, self.shape = name, [1, 2]
class InferSession:
    def __init__(self, device, path): pass
    def get_inputs(self): return [Meta("x")]
    def get_outputs(self): return [Meta("Node:0:y")]
    def infer(self, feeds, mode): return [feeds[0] * 2] if feeds[0][0, 0] < 5 else os._exit(7)
    def free_resource(self): pass
'''


def test_a_part_answers_from_its_own_process_and_its_death_is_told(tmp_path, monkeypatch):
    place = tmp_path / "ais_bench" / "infer"
    place.mkdir(parents=True)
    for folder in (place, place.parent):
        (folder / "__init__.py").write_text("")
    (place / "interface.py").write_text(STUB)
    monkeypatch.syspath_prepend(str(tmp_path))
    bundle = {"inputs": [{"name": "x", "dtype": "float16"}], "outputs": [{"name": "y"}],
              "profiles": {"kind": "static", "values": []}}
    spent = []
    with PartProcess("unet", tmp_path / "unet.om", "ais_bench", 0, bundle, spent) as part:
        answer = part({"x": np.ones((1, 2))})
        assert (answer.dtype, answer.tolist(), len(spent)) == (np.float32, [[2, 2]], 1)
        with pytest.raises(Failure, match=r"the \.om of unet died \(exit code 7\)"):
            part({"x": np.full((1, 2), 9)})
