import pytest
import tensorflow as tf
import tf_keras as keras

from vswin.runtime import (
    default_output_dir,
    describe_devices,
    format_seconds,
    logger,
    make_strategy,
    set_precision,
    start_log,
)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_naturally(seconds, text):
    assert format_seconds(seconds) == text


def test_default_output_dir_is_never_a_folder_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_output_dir("swin_micro", "motion")
    first.mkdir(parents=True)
    assert first.name.endswith("_swin_micro_motion")
    assert default_output_dir("swin_micro", "motion") != first


def test_the_log_goes_to_the_terminal_and_once_to_the_file(tmp_path, capsys):
    start_log(None)
    start_log(tmp_path / "train.log")
    logger.info("three clips")
    start_log(tmp_path / "train.log")
    logger.info("four clips")
    start_log(None)
    assert capsys.readouterr().out == "three clips\nfour clips\n"
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line[20:] for line in lines] == ["three clips", "four clips"]


def test_precision_leaves_the_weights_in_float32():
    set_precision("bfloat16")
    layer = keras.layers.Dense(2)
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="counts the logical CPUs of a machine without GPU"
)
@pytest.mark.parametrize(("name", "num_devices"), [("auto", 1), ("one_device", 1), ("mirrored", 2)])
def test_a_strategy_takes_the_devices_it_names(name, num_devices):
    strategy = make_strategy(name)
    assert strategy.num_replicas_in_sync == num_devices
    assert describe_devices(strategy).startswith("2 logical CPUs (" if num_devices == 2 else "CPU (")
