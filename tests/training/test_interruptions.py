import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from vswin.cluster import Workers
from vswin.errors import InputError
from vswin.runtime import start_log
from vswin.training import interruptions
from vswin.training.interruptions import SaveAndStop, faults_explained, resume_command

GO_ON = "python train.py resume=true"


def test_the_command_that_continues_keeps_what_was_typed():
    command = ["python", "train.py", "model=swin_tiny", "clip.crop=112", "resume=false"]
    assert resume_command(command, Path("outputs/run")) == (
        "python train.py model=swin_tiny clip.crop=112 output_dir=outputs/run resume=true"
    )


@pytest.mark.parametrize("given", ["output_dir='my run'", "+output_dir=a", "++output_dir=a"])
def test_an_output_dir_that_was_typed_stays_as_it_was(given):
    command = resume_command(["python", "train.py", given, "++resume=true"], Path("my run"))
    assert shlex.split(command) == ["python", "train.py", given, "resume=true"]


def test_a_shell_reads_the_command_as_it_was_given(tmp_path):
    echo = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
    typed = ["dataset.root='my videos/a,b'", 'x="$HOME"', "model.depths=[1,1]", "a=it's", "b=*", "c=ä ; echo d"]
    command = resume_command([*echo, *typed], Path("the user's `run`"))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [*typed, "output_dir=the user's `run`", "resume=true"]


def test_an_installed_command_is_named_as_it_is_typed(tmp_path, monkeypatch):
    script = tmp_path / "vswin"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resume_command(["/env/python", str(script), "train", "epochs=2"], Path("run")) == (
        "vswin train epochs=2 output_dir=run resume=true"
    )
    monkeypatch.setenv("PATH", "")
    assert resume_command(["/env/python", str(script), "train"], Path("run")) == (
        f"/env/python {script} train output_dir=run resume=true"
    )


def test_python_code_is_told_which_keys_continue_its_run():
    assert resume_command([], Path("run")) == "run_training with output_dir='run' and resume=True"


@pytest.fixture
def stop() -> SaveAndStop:
    """Makes a `SaveAndStop` for a run of 3 epochs with 5 steps each, whose first epoch is saved."""
    saved: list[tuple[int, int]] = []
    checkpoints = SimpleNamespace(steps_per_epoch=5, place="epoch 1", saved=saved, waits=[])
    checkpoints.finish_saving = lambda: checkpoints.waits.append(1)
    checkpoints.save_state = lambda epochs, steps, wait: saved.append((epochs, steps))
    checkpoints.finish_written = lambda: None
    checked: list[int] = []
    finite = SimpleNamespace(check_weights=checked.append, checked=checked)
    callback = SaveAndStop(checkpoints, finite, Workers(tf.distribute.get_strategy()), GO_ON)
    callback.set_params({"epochs": 3})
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_epoch_begin(1)
    return callback


def send(stop: SaveAndStop, number: int) -> None:
    """Sends this process a signal and waits until it is recorded."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 20
    while stop._caught is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_saves_the_state_after_the_step_and_says_how_to_go_on(stop, capfd, number, name):
    start_log(None)

    def train() -> None:
        with stop.taking_signals():
            stop.on_train_batch_end(1)
            send(stop, number)
            stop.on_train_batch_end(2)

    with pytest.raises(SystemExit) as caught:
        train()
    assert caught.value.code == 128 + number
    assert (stop.finite.checked, stop.checkpoints.saved) == ([2], [(1, 3)])
    printed = capfd.readouterr()
    assert printed.err == "\nstopping as soon as the state is saved; once more to stop at once\n"
    assert printed.out == f"stopped by {name}; the state after epoch 1 is saved. Go on with\n  {GO_ON}\n"


def test_without_a_signal_nothing_happens(stop, capfd):
    with stop.taking_signals():
        for step in range(5):
            stop.on_train_batch_end(step)
        stop.on_epoch_end(1)
    assert stop.checkpoints.saved == []
    assert capfd.readouterr() == ("", "")


def test_a_signal_in_the_last_step_or_the_validation_lets_the_epoch_be_completed(stop):

    def train() -> None:
        with stop.taking_signals():
            send(stop, signal.SIGINT)
            stop.on_train_batch_end(4)
            stop.on_epoch_end(1)

    with pytest.raises(SystemExit) as caught:
        train()
    assert caught.value.code == 130
    assert stop.checkpoints.saved == []
    # The state saved after the epoch is on the disk before the process ends.
    assert stop.checkpoints.waits == [1]


@pytest.mark.parametrize("reason", ["last epoch", "stalled"])
def test_a_run_with_nothing_left_to_do_ends_as_usual(stop, capfd, reason):
    stop.model.stop_training = reason == "stalled"
    with stop.taking_signals():
        send(stop, signal.SIGINT)
        stop.on_train_batch_end(4)
        stop.on_epoch_end(2 if reason == "last epoch" else 1)
    assert capfd.readouterr().out == ""


def test_a_state_that_is_not_finite_is_not_saved(stop):
    def refuse(step: int) -> None:
        raise InputError("weights that are not finite")

    def train() -> None:
        with stop.taking_signals():
            send(stop, signal.SIGINT)
            stop.on_train_batch_end(2)

    stop.finite.check_weights = refuse
    with pytest.raises(InputError, match="weights that are not finite"):
        train()
    assert stop.checkpoints.saved == []


def test_the_signals_are_given_back(stop):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    num_threads = threading.active_count()

    def train() -> None:
        with stop.taking_signals():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == num_threads


def test_a_signal_that_the_process_was_told_to_ignore_stays_ignored(stop):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop.taking_signals():
            os.kill(os.getpid(), signal.SIGINT)
            stop.on_train_batch_end(2)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.checkpoints.saved == []


def test_outside_of_the_main_thread_training_works_and_signals_are_left_alone(stop):
    steps = []

    def train() -> None:
        with stop.taking_signals():
            stop.on_train_batch_end(0)
            steps.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert steps == [before]


def test_a_second_signal_ends_the_process_inside_a_step_that_takes_minutes():
    """The step runs C code that does not return to Python, so a Python signal handler would not run."""
    code = (
        "import hashlib\n"
        "from types import SimpleNamespace\n"
        "from vswin.training.interruptions import SaveAndStop\n"
        "with SaveAndStop(*[SimpleNamespace()] * 3, '').taking_signals():\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        while b"once more to stop at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now.seconds)
    return now


def run_epochs(clock, minutes, steps, epochs=2, seconds_per_step=60):
    """Takes steps, five per epoch; returns the (epoch, steps done) of the states."""
    saved, checked = [], []
    checkpoints = SimpleNamespace(steps_per_epoch=5, finish_written=lambda: None)
    checkpoints.save_state = lambda epoch, steps_done, wait: saved.append((epoch, steps_done, wait))
    finite = SimpleNamespace(check_weights=checked.append)
    callback = SaveAndStop(checkpoints, finite, Workers(tf.distribute.get_strategy()), GO_ON, minutes, steps)
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        for batch in range(5):
            clock.seconds += seconds_per_step
            callback.on_train_batch_end(batch)
    assert [step + 1 for step in checked] == [steps_done for _, steps_done, _ in saved]
    assert not any(wait for *_, wait in saved)
    return [(epoch, steps_done) for epoch, steps_done, _ in saved]


def test_every_so_many_steps_of_the_run_but_not_at_the_end_of_an_epoch(clock):
    assert run_epochs(clock, None, 3) == [(0, 3), (1, 1), (1, 4)]
    assert run_epochs(clock, None, 5) == []


def test_every_so_many_minutes_since_the_last_state(clock):
    assert run_epochs(clock, 2, None) == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert run_epochs(clock, 2.5, None) == [(0, 3), (1, 3)]
    assert run_epochs(clock, 10, None) == []


def test_never(clock):
    assert run_epochs(clock, None, None) == []


def fail_with_tensorflow() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "/disk/ckpt-3_temp/part-0; No space left on device")


def fail_with_python() -> None:
    raise OSError(28, os.strerror(28), "/disk/history.csv")


def explain(fail, compose_train, folder, place="", *overrides):
    config = compose_train(*overrides)
    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    checkpoints = SimpleNamespace(
        place=place, workers=Workers(strategy), trainer=SimpleNamespace(distribute_strategy=strategy)
    )
    with pytest.raises(InputError) as caught, faults_explained(config, checkpoints, folder, GO_ON):
        fail()
    return str(caught.value)


@pytest.mark.parametrize("fail", [fail_with_tensorflow, fail_with_python])
@pytest.mark.parametrize(
    ("place", "words"), [("epoch 3", "the state after epoch 3 is saved and whole"), ("", "no state is saved yet")]
)
def test_a_full_disk_is_explained(fail, place, words, compose_train, tmp_path):
    assert explain(fail, compose_train, tmp_path, place) == (
        f"writing into {tmp_path} failed: No space left on device; {words}. Make room, then go on with\n  {GO_ON}"
    )


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_disk_that_is_lost_is_explained(code, compose_train, tmp_path):
    def fail():
        raise OSError(code, os.strerror(code))

    message = explain(fail, compose_train, tmp_path, "epoch 1")
    assert message.startswith(f"writing into {tmp_path} failed: {os.strerror(code)}; the state after epoch 1 is saved")
    assert "See to the disk, then go on with" in message


def test_a_folder_that_was_removed_is_named(compose_train, tmp_path):
    def fail():
        (tmp_path / "gone" / "history.csv").write_text("")

    message = explain(fail, compose_train, tmp_path / "gone", "epoch 1")
    assert message == (
        f"the folder of the run, {tmp_path / 'gone'}, was moved or removed while it went on. The state after epoch 1 "
        f"is whole in it: bring it back, or name its new place with output_dir=, and go on with\n  {GO_ON}\n"
        "  If it is gone, start again"
    )


def fail_for_memory() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[1024,3,392,392]")


@pytest.mark.parametrize(
    ("overrides", "way_out"),
    [
        (("batch_size=6",), "runtime.remat=true"),
        (("batch_size=6", "runtime.remat=true"), "runtime.micro_batches=2"),
        (("batch_size=6", "runtime.remat=true", "augment.mixup=0.8"), "runtime.micro_batches=3"),
        (("batch_size=6", "model.freeze=[backbone.*]"), "runtime.micro_batches=2"),
        (("batch_size=6", "runtime.remat=true", "runtime.micro_batches=3"), "runtime.micro_batches=6"),
    ],
)
def test_too_little_memory_is_explained_by_what_does_not_fit_and_what_to_try(
    overrides, way_out, compose_train, tmp_path
):
    message = explain(fail_for_memory, compose_train, tmp_path, "", *overrides)
    assert "out of memory: batch_size=6 clips of 8 x 64 x 64 with runtime.micro_batches=" in message
    assert "No state is saved yet." in message
    assert message.splitlines()[-1] == f"  {GO_ON} {way_out}"


def test_no_setting_is_named_where_none_takes_less(compose_train, tmp_path):
    overrides = ("batch_size=6", "runtime.remat=true", "runtime.micro_batches=6")
    message = explain(fail_for_memory, compose_train, tmp_path, "", *overrides)
    assert message.endswith("No state is saved yet. No setting is left that keeps the step")


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, os.strerror(errno.ENOENT), "video.mp4")])
def test_other_errors_stay_what_they_are(error, compose_train, tmp_path):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    checkpoints = SimpleNamespace(place="", workers=Workers(tf.distribute.get_strategy()))
    with pytest.raises(type(error)) as caught, faults_explained(compose_train(), checkpoints, tmp_path, GO_ON):
        raise error
    assert caught.value is error
