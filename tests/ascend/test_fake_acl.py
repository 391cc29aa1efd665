"""The FAKE pyACL bites: a wrong order, handle, size or kind is a documented code, and the right order is none."""

import sys

import numpy as np
import pytest
import tiny
from box_bundles import pictures

from kit.ascend.box.rehearsing import atc
from kit.ascend.box.rehearsing.modules import acl
from kit.ascend.box.rehearsing.modules.acl.handles import state
from kit.runtimes.om_session import AclModel, Failure, import_acl


@pytest.fixture
def fake(monkeypatch):
    """The module as a new process finds it."""
    state.__init__()
    monkeypatch.setitem(sys.modules, "acl", acl)
    monkeypatch.setenv("KIT_FAKE_SOC", "Ascend310P3")
    yield acl
    state.__init__()


@pytest.fixture(scope="session")
def om(tmp_path_factory):
    return built(tmp_path_factory.mktemp("om"), "--input_shape=x:1,3,8,8")


@pytest.fixture(scope="session")
def batches(tmp_path_factory):
    return built(tmp_path_factory.mktemp("batches"), "--input_shape=x:-1,3,8,8", "--dynamic_batch_size=1,4")


def built(folder, *flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = tiny.conv_net(folder / "m.onnx")
        assert atc.main([f"--model={model}", "--framework=5", "--output=net", "--soc_version=Ascend310P3", *flags]) == 0
    return folder / "net.om"


def opened(acl):
    """init, device and context, as documented."""
    assert acl.init() == 0
    assert acl.rt.set_device(0) == 0
    context, ret = acl.rt.create_context(0)
    assert ret == 0
    return context


# ---- the documented order -----------------------------------------------------------------------------------------


def test_the_script_of_the_box_keeps_the_order_and_gives_everything_back(fake, om, capsys):
    feed = pictures(1, 1, 3, 8, 8)[0]
    with AclModel(om) as model:
        first = model.run(feed)["y"]
        again = model.run({"x": feed["x"] * 2})["y"]
        assert len(model.time(feed, 2, copies=True)) == 2
    assert not np.array_equal(first, again)
    assert first.shape == (1, 1, 8, 8)
    assert state.finalised, "finalize was reached"
    assert not any(state.live.values()), "every handle is back"
    assert capsys.readouterr().err == "", "the FAKE had nothing to complain about"


def test_an_error_in_the_middle_gives_the_device_back_too(fake, om, capsys):
    with pytest.raises(Failure, match=r"acl\.rt\.set_device failed: error code 107001"):
        AclModel(om, device=7)
    assert state.finalised
    state.__init__()
    with AclModel(om) as model, pytest.raises(Failure, match="x takes float32, not float64"):
        model.run({"x": np.zeros((1, 3, 8, 8))})
    assert state.finalised
    assert not any(state.live.values())
    assert "not given back" not in capsys.readouterr().err


def test_profiles_are_chosen_by_what_is_fed_and_a_size_between_them_is_the_documented_code(fake, batches):
    with AclModel(batches) as model:
        assert model.profiles == {"kind": "batch", "values": [[1], [4]]}
        assert [spec["name"] for spec in model.inputs] == ["x"], "the extra input is none of the reader's business"
        for count in (4, 1):
            assert model.run(pictures(1, count, 3, 8, 8)[0])["y"].shape == (count, 1, 8, 8)
        with pytest.raises(Failure, match=r"acl\.mdl\.set_dynamic_batch_size failed: error code 145013"):
            model.run(pictures(1, 2, 3, 8, 8)[0])


def test_a_code_beside_a_value_is_looked_at_too(fake, om, monkeypatch):
    monkeypatch.setattr(acl.rt, "fault", "no-memory")
    with pytest.raises(Failure, match=r"acl\.rt\.malloc failed: error code 207001"):
        AclModel(om)
    assert state.finalised


def test_a_script_that_forgets_to_give_back_is_told_what(fake, om, monkeypatch, capsys):
    monkeypatch.setattr(acl, "destroy_data_buffer", lambda buffer: 0)
    AclModel(om).close()
    said = capsys.readouterr().err
    assert "148051: the device memory is still in use: 1 data buffers" in said
    assert "148051: the context is still in use: device memory" in said
    assert "not given back: 1 context, 2 dataset, 2 data buffer, 2 device memory, the device" in said


@pytest.mark.parametrize(("calls", "code"), [
    (lambda acl: acl.rt.set_device(0), 100001),
    (lambda acl: acl.init() or acl.rt.create_context(0)[1], 107001),
    (lambda acl: acl.init() or acl.rt.set_device(0) or acl.mdl.load_from_file("m.om")[1], 107002),
    (lambda acl: acl.init() or acl.rt.set_device(0) or acl.rt.malloc(8, 0)[1], 107002),
    (lambda acl: acl.init() or acl.init(), 100002),
    (lambda acl: acl.init() or acl.finalize() or acl.finalize(), 100037),
    (lambda acl: acl.init() or acl.finalize() or acl.init(), 100002),
    (lambda acl: acl.init("no-such.json"), 100003),
    (lambda acl: acl.init() or acl.rt.set_device(0) or acl.finalize(), 148051),
    (lambda acl: acl.init() or acl.rt.reset_device(0), 107001),
], ids=["no init", "no device", "no context", "no context for memory", "init twice", "finalize twice",
        "init after finalize", "no such config", "device kept", "device never set"])
def test_calls_out_of_order_are_refused(fake, calls, code):
    assert calls(fake) == code


def test_device_and_context_are_given_back_from_the_inside_out(fake):
    context = opened(fake)
    assert fake.rt.reset_device(0) == 148051
    pointer, _ = fake.rt.malloc(64, 0)
    assert fake.rt.destroy_context(context) == 148051
    assert fake.rt.free(pointer) == 0
    assert fake.rt.free(pointer) == 107017, "twice"
    assert fake.rt.destroy_context(context) == 0
    assert fake.rt.destroy_context(context) == 107017
    assert fake.rt.reset_device(0) == 0
    assert fake.finalize() == 0


def test_a_handle_of_another_kind_is_no_handle(fake, capsys):
    opened(fake)
    dataset = fake.mdl.create_dataset()
    assert fake.mdl.destroy_desc(dataset) == 107017
    assert "it is one of a dataset" in capsys.readouterr().err


# ---- memory -------------------------------------------------------------------------------------------------------


def test_copies_keep_to_sizes_and_to_the_side_that_their_kind_names(fake):
    opened(fake)
    device, _ = fake.rt.malloc(64, 0)
    host, _ = fake.rt.malloc_host(64)
    source = fake.util.bytes_to_ptr(b"abcdefgh" * 8)
    assert fake.rt.memcpy(device, 64, source, 64, 1) == 0
    assert fake.rt.memcpy(host, 64, device, 64, 2) == 0
    assert fake.util.ptr_to_bytes(host, 64) == b"abcdefgh" * 8
    for wrong in ((device, 64, source, 64, 2), (device, 64, source, 64, 9), (device, 32, source, 64, 1),
                  (device, 128, source, 128, 1), (device, 64, source, 0, 1), (host, 64, device, 64, 1),
                  (device + 8, 64, source, 64, 1)):
        assert fake.rt.memcpy(*wrong) == 107000, wrong


@pytest.mark.parametrize(("size", "policy", "code"), [(0, 0, 107000), (-8, 0, 107000), (8, 5, 107018)])
def test_memory_that_cannot_be_is_refused(fake, size, policy, code):
    opened(fake)
    assert fake.rt.malloc(size, policy) == (0, code)


def test_arguments_of_another_type_are_refused_as_the_c_wrapper_refuses_them(fake):
    opened(fake)
    with pytest.raises(TypeError, match=r"acl\.rt\.malloc args parse failed"):
        fake.rt.malloc(64.0, 0)
    with pytest.raises(TypeError, match="takes bytes, not bytearray"):
        fake.util.bytes_to_ptr(bytearray(b"a"))


# ---- models -------------------------------------------------------------------------------------------------------


def loaded(acl, path):
    model, ret = acl.mdl.load_from_file(str(path))
    assert ret == 0
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, model) == 0
    return model, desc


def dataset(acl, *sizes):
    made = acl.mdl.create_dataset()
    for size in sizes:
        pointer, _ = acl.rt.malloc(size, 0)
        acl.mdl.add_dataset_buffer(made, acl.create_data_buffer(pointer, size))
    return made


def test_a_description_tells_names_types_and_aligned_sizes(fake, om):
    opened(fake)
    _, desc = loaded(fake, om)
    assert (fake.mdl.get_num_inputs(desc), fake.mdl.get_num_outputs(desc)) == (1, 1)
    assert fake.mdl.get_input_size_by_index(desc, 0) == 3 * 8 * 8 * 4
    assert fake.mdl.get_input_dims(desc, 0) == ({"name": "x", "dimCount": 4, "dims": [1, 3, 8, 8]}, 0)
    assert fake.mdl.get_input_data_type(desc, 0) == 0
    assert fake.mdl.get_output_name_by_index(desc, 0) == "sigmoid:0:y"
    assert fake.mdl.get_input_index_by_name(desc, "ascend_mbatch_shape_data")[1] != 0, "no profiles"
    assert fake.mdl.get_input_dims(desc, 3)[1] == 100000
    assert fake.mdl.get_num_inputs(fake.mdl.create_desc()) == 0, "an empty description"


def test_buffers_that_are_missing_or_too_small_do_not_run(fake, om):
    opened(fake)
    model, _ = loaded(fake, om)
    good, out = dataset(fake, 768), dataset(fake, 256)
    assert fake.mdl.execute(model, good, out) == 0
    assert fake.mdl.execute(model, dataset(fake, 736), out) == 100017
    assert fake.mdl.execute(model, dataset(fake), out) == 100017
    assert fake.mdl.execute(model, good, dataset(fake, 128)) == 100018
    assert fake.mdl.execute(99, good, out) == 145003
    assert fake.create_data_buffer(1234, 8) == 0, "not device memory"


def test_a_model_is_used_in_the_context_that_it_was_loaded_in(fake, om):
    opened(fake)
    model, _ = loaded(fake, om)
    given, wanted = dataset(fake, 768), dataset(fake, 256)
    fake.rt.create_context(0)  # becomes the current one
    assert fake.mdl.execute(model, given, wanted) == 107004
    assert fake.mdl.unload(model) == 107004


def test_memory_that_was_given_back_is_not_run_on(fake, om):
    opened(fake)
    model, _ = loaded(fake, om)
    given, wanted = dataset(fake, 768), dataset(fake, 256)
    buffer = fake.mdl.get_dataset_buffer(given, 0)
    assert fake.rt.free(fake.get_data_buffer_addr(buffer)) == 148051, "the data buffer still points to it"
    assert fake.destroy_data_buffer(buffer) == 0
    assert fake.mdl.execute(model, given, wanted) == 107000


def test_a_profile_must_be_chosen_and_be_one_of_the_model(fake, batches):
    opened(fake)
    model, desc = loaded(fake, batches)
    index, ret = fake.mdl.get_input_index_by_name(desc, "ascend_mbatch_shape_data")
    assert (index, ret) == (1, 0)
    assert fake.mdl.get_dynamic_batch(desc) == ({"batchCount": 2, "batch": [1, 4]}, 0)
    given = dataset(fake, *(fake.mdl.get_input_size_by_index(desc, n) for n in range(2)))
    wanted = dataset(fake, fake.mdl.get_output_size_by_index(desc, 0))
    assert fake.mdl.execute(model, given, wanted) == 145013, "none was chosen"
    assert fake.mdl.set_dynamic_batch_size(model, given, index, 3) == 145013
    assert fake.mdl.set_dynamic_batch_size(model, given, 0, 4) == 100000, "another input"
    assert fake.mdl.set_dynamic_hw_size(model, given, index, 8, 8) == 100019, "another kind"
    assert fake.mdl.set_dynamic_batch_size(model, given, index, 4) == 0
    assert fake.mdl.execute(model, given, wanted) == 0
    assert fake.mdl.get_cur_output_dims(desc, 0)[0]["dims"] == [4, 1, 8, 8]


def test_an_om_for_another_chip_and_a_real_om_do_not_load(fake, om, tmp_path, monkeypatch):
    opened(fake)
    monkeypatch.setenv("KIT_FAKE_SOC", "Ascend910B3")
    assert fake.mdl.load_from_file(str(om))[1] == 507008
    real = tmp_path / "real.om"
    real.write_bytes(b"IMOD" + bytes(100))
    assert fake.mdl.load_from_file(str(real))[1] == 545001
    assert fake.mdl.load_from_file("none.om")[1] == 145002


def test_the_older_releases_that_lack_bytes_to_ptr_are_served_too(fake, om, monkeypatch):
    feed = pictures(1, 1, 3, 8, 8)[0]
    with AclModel(om) as model:
        wanted = model.run(feed)["y"]
    state.__init__()
    for name in ("bytes_to_ptr", "ptr_to_bytes"):
        monkeypatch.delattr(acl.util, name)
    with AclModel(om) as model:
        np.testing.assert_array_equal(model.run(feed)["y"], wanted)


def test_everything_it_says_of_itself_says_fake(fake):
    assert "FAKE" in fake.__fake__
    assert "FAKE" in fake.get_soc_name()
    assert fake.init() == 0
    assert fake.init() == 100002
    assert fake.get_recent_err_msg().startswith("FAKE acl: 100002")
    assert import_acl() is fake
