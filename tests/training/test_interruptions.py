import errno
import json
import os
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


@pytest.mark.parametrize(
    ("command", "folder", "expected"),
    [
        (
            ["python", "train.py", "model=swin_tiny", "resume=false"],
            "outputs/run",
            "python train.py model=swin_tiny output_dir=outputs/run resume=true",
        ),
        # An output_dir that was typed stays as it was.
        (["python", "train.py", "+output_dir=a", "++resume=true"], "a", "python train.py +output_dir=a resume=true"),
        ([], "run", "run_training with output_dir='run' and resume=True"),
    ],
)
def test_the_command_that_continues_keeps_what_was_typed(command, folder, expected):
    assert resume_command(command, Path(folder)) == expected


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


@pytest.fixture
def stop() -> SaveAndStop:
    """Makes a `SaveAndStop` for a run of 3 epochs with 5 steps each, whose first epoch is saved."""
    saved: list[tuple[int, int]] = []
    checkpoints = SimpleNamespace(steps_per_epoch=5, position="epoch 1", saved=saved, waits=[])
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


def end_with(stop: SaveAndStop, number: int, step: int, epoch_ends: bool = False) -> None:
    """Sends a signal before a step of the second epoch ends."""
    with stop.taking_signals():
        send(stop, number)
        stop.on_train_batch_end(step)
        if epoch_ends:
            stop.on_epoch_end(1)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_saves_the_state_after_the_step_and_says_how_to_go_on(stop, capfd, number, name):
    start_log(None)
    before = signal.getsignal(number), threading.active_count()
    with pytest.raises(SystemExit) as caught:
        end_with(stop, number, 2)
    assert caught.value.code == 128 + number
    assert (stop.finite.checked, stop.checkpoints.saved) == ([2], [(1, 3)])
    printed = capfd.readouterr()
    assert printed.err == "\nstopping as soon as the state is saved; once more to stop at once\n"
    assert printed.out == f"stopped by {name}; the state after epoch 1 is saved. Go on with\n  {GO_ON}\n"
    assert (signal.getsignal(number), threading.active_count()) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_in_the_last_step_or_the_validation_lets_the_epoch_be_completed(stop):
    with pytest.raises(SystemExit) as caught:
        end_with(stop, signal.SIGINT, 4, epoch_ends=True)
    assert caught.value.code == 130
    assert stop.checkpoints.saved == []
    # The state saved after the epoch is on the disk before the process ends.
    assert stop.checkpoints.waits == [1]


@pytest.mark.parametrize("reason", ["last epoch", "stalled"])
def test_a_run_with_nothing_left_to_do_ends_as_usual(stop, capfd, reason):
    stop.model.stop_training = reason == "stalled"
    stop.set_params({"epochs": 2 if reason == "last epoch" else 3})
    end_with(stop, signal.SIGINT, 4, epoch_ends=True)
    assert capfd.readouterr().out == ""


def test_a_state_that_is_not_finite_is_not_saved(stop):
    def refuse(step: int) -> None:
        raise InputError("weights that are not finite")

    stop.finite.check_weights = refuse
    with pytest.raises(InputError, match="weights that are not finite"):
        end_with(stop, signal.SIGINT, 2)
    assert stop.checkpoints.saved == []


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


def test_outside_of_the_main_thread_signals_are_left_alone(stop):
    seen = []

    def train() -> None:
        with stop.taking_signals():
            stop.on_train_batch_end(0)
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


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


@pytest.mark.parametrize(
    ("minutes", "steps", "states"),
    [
        (None, 3, [(0, 3), (1, 1), (1, 4)]),
        (None, 5, []),  # not at the end of an epoch
        (2, None, [(0, 2), (0, 4), (1, 2), (1, 4)]),
        (2.5, None, [(0, 3), (1, 3)]),
        (10, None, []),
        (None, None, []),
    ],
)
def test_states_are_saved_every_so_many_minutes_or_steps(monkeypatch, minutes, steps, states):
    """Two epochs of five steps, each of which takes a minute."""
    now, saved, checked = SimpleNamespace(seconds=0.0), [], []
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now.seconds)
    checkpoints = SimpleNamespace(steps_per_epoch=5, finish_written=lambda: None)
    checkpoints.save_state = lambda epoch, steps_done, wait: saved.append((epoch, steps_done, wait))
    finite = SimpleNamespace(check_weights=checked.append)
    callback = SaveAndStop(checkpoints, finite, Workers(tf.distribute.get_strategy()), GO_ON, minutes, steps)
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for batch in range(5):
            now.seconds += 60
            callback.on_train_batch_end(batch)
    assert saved == [(*state, False) for state in states]
    assert [step + 1 for step in checked] == [steps_done for _, steps_done in states]


def fail_with_tensorflow() -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "/disk/ckpt-3_temp/part-0; No space left on device")


def explain(fail, compose_train, folder, position="", *overrides):
    config = compose_train(*overrides)
    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    checkpoints = SimpleNamespace(
        position=position, workers=Workers(strategy), trainer=SimpleNamespace(distribute_strategy=strategy)
    )
    with pytest.raises(InputError) as caught, faults_explained(config, checkpoints, folder, GO_ON):
        fail()
    return str(caught.value)


@pytest.mark.parametrize(
    ("position", "words"), [("epoch 3", "the state after epoch 3 is saved and whole"), ("", "no state is saved yet")]
)
def test_a_full_disk_is_explained(position, words, compose_train, tmp_path):
    assert explain(fail_with_tensorflow, compose_train, tmp_path, position) == (
        f"writing into {tmp_path} failed: No space left on device; {words}. Make room, then go on with\n  {GO_ON}"
    )


@pytest.mark.parametrize(
    ("code", "way_out"), [(errno.ENOSPC, "Make room"), (errno.EIO, "See to the disk"), (errno.EROFS, "See to the disk")]
)
def test_a_disk_that_is_lost_is_explained(code, way_out, compose_train, tmp_path):
    def fail():
        raise OSError(code, os.strerror(code))

    message = explain(fail, compose_train, tmp_path, "epoch 1")
    assert message.startswith(f"writing into {tmp_path} failed: {os.strerror(code)}; the state after epoch 1 is saved")
    assert f"{way_out}, then go on with" in message


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
        (("batch_size=6", "runtime.remat=true", "runtime.micro_batches=6"), ""),
    ],
)
def test_too_little_memory_is_explained_by_what_does_not_fit_and_what_to_try(
    overrides, way_out, compose_train, tmp_path
):
    message = explain(fail_for_memory, compose_train, tmp_path, "", *overrides)
    assert "out of memory: batch_size=6 clips of 8 x 64 x 64 with runtime.micro_batches=" in message
    assert "No state is saved yet." in message
    assert message.endswith(f"  {GO_ON} {way_out}" if way_out else "No setting is left that keeps the step")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, os.strerror(errno.ENOENT), "run/checkpoints/last/ckpt-4.index"),
        tf.errors.NotFoundError(None, None, "a/link/ckpt-4_temp/part-0; No such file or directory"),
    ],
)
def test_states_that_are_removed_before_the_first_is_saved_are_named(error, compose_train, tmp_path):
    def fail():
        raise error

    assert "checkpoints/last was removed while the run went on" in explain(fail, compose_train, tmp_path)


@pytest.mark.parametrize("has_states", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        OSError(errno.ENOENT, os.strerror(errno.ENOENT), "video.mp4"),
        tf.errors.NotFoundError(None, None, "run/tensorboard/events.out; No such file or directory"),
    ],
)
def test_other_errors_stay_what_they_are(error, has_states, compose_train, tmp_path):
    if has_states:
        (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    checkpoints = SimpleNamespace(position="", workers=Workers(tf.distribute.get_strategy()))
    with pytest.raises(type(error)) as caught, faults_explained(compose_train(), checkpoints, tmp_path, GO_ON):
        raise error
    assert caught.value is error
