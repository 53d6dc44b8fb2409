"""Prediction from a camera, with a file in its place: no camera was attached where this was tested."""

from contextlib import closing

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.inference import predict
from vswin.inference.cameras import watch_camera
from vswin.inference.predict import Outputs, run_predict


@pytest.mark.parametrize(("num_frames", "numbers"), [(30, [23, 25, 27, 29]), (3, [0, 2, 1, 0])])
def test_the_last_prediction_is_that_of_the_last_frames(loaded, model, write_ramp, tmp_path, num_frames, numbers):
    watched = list(watch_camera(loaded, write_ramp(tmp_path / "stream.avi", num_frames), None))
    clip = np.zeros((1, 4, 32, 32, 3), np.uint8) + np.array(6 * np.array(numbers) + 3, np.uint8)[:, None, None, None]
    logits = model(clip).numpy()[0]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(watched[-1][1], expected, rtol=0, atol=1e-5)
    times = [at for at, _ in watched]
    assert times == sorted(times)
    assert times[0] > 0


@pytest.fixture
def camera(monkeypatch):
    """Puts in a camera that returns frames without end."""

    class EndlessCamera:
        name = "camera:7"
        is_closed = False

        def __init__(self, source):
            assert source == 7

        def read(self):
            return np.zeros((48, 64, 3), np.uint8)

        def close(self):
            EndlessCamera.is_closed = True

    monkeypatch.setattr("vswin.inference.cameras.Camera", EndlessCamera)
    return EndlessCamera


def test_a_camera_is_watched_for_as_long_as_is_said_and_given_back(run_folder, camera, tmp_path, capsys):
    outputs = Outputs(csv=tmp_path / "p.csv")
    predictions = run_predict(["camera:7"], str(run_folder), seconds=0.5, outputs=outputs, top_k=1)
    assert predictions
    assert predictions[-1].seconds <= 0.5
    assert camera.is_closed
    header, row, *_ = (tmp_path / "p.csv").read_text().splitlines()
    assert header == "path,seconds,class_1,probability_1,error"
    assert row.startswith(f"camera:7,{predictions[0].seconds:.3f},")
    assert "camera:7: Ctrl-C ends" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_camera_that_fails_ends_the_command(run_folder, camera, monkeypatch):
    def fail(self):
        raise OSError("the driver failed")

    monkeypatch.setattr(camera, "read", fail)
    with pytest.raises(InputError, match="camera:7 gives no frames"):
        run_predict(["camera:7"], str(run_folder))
    assert camera.is_closed


def test_ctrl_c_is_the_usual_end(run_folder, camera, monkeypatch, tmp_path):
    shown = []

    def interrupt(console, prediction):
        shown.append(prediction)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(predict, "print_prediction", interrupt)
    assert len(run_predict(["camera:7"], str(run_folder), outputs=Outputs(csv=tmp_path / "p.csv"))) == 2
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 3
    assert camera.is_closed


def test_a_consumer_that_stops_gives_the_camera_back(loaded, camera):
    with closing(watch_camera(loaded, 7, None)) as watched:
        next(watched)
    assert camera.is_closed


def test_without_a_camera_or_its_frames_the_error_names_it(loaded, run_folder, camera, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="--save goes with files"):
        run_predict(["camera"], str(run_folder), outputs=Outputs(save=tmp_path / "saved"))
    monkeypatch.setattr(camera, "read", lambda self: None)
    with pytest.raises(InputError, match="camera:7 gives no frames"):
        list(watch_camera(loaded, 7, None))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"camera:99 cannot be opened: no such camera is attached"):
        list(watch_camera(loaded, 99, None))
