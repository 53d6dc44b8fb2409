"""Prediction from a camera, with a file in its place: no camera was attached where this was tested."""

from contextlib import closing

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.inference import run
from vswin.inference.camera import predict_camera
from vswin.inference.model import open_model
from vswin.inference.protocol import find_protocol
from vswin.inference.run import Outputs, run_predict


@pytest.fixture(scope="module")
def loaded(run_folder):
    return open_model(str(run_folder), find_protocol(str(run_folder)))


def expected(model, grays):
    """Returns the model's prediction for a clip of plain frames, [K]."""
    clip = np.zeros((1, 4, 32, 32, 3), np.uint8) + np.array(grays, np.uint8)[None, :, None, None, None]
    logits = model(clip).numpy()[0]
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_the_last_prediction_is_that_of_the_last_frames(loaded, model, write_ramp, tmp_path):
    video = write_ramp(tmp_path / "stream.avi", 30)
    predictions = list(predict_camera(loaded, video, 3, None))
    last = predictions[-1]
    np.testing.assert_allclose(
        last.probabilities, np.sort(expected(model, 6 * np.array([23, 25, 27, 29]) + 3))[::-1], rtol=0, atol=1e-5
    )
    assert last.path == f"camera:{video}"
    times = [prediction.seconds for prediction in predictions]
    assert times == sorted(times)
    assert times[0] > 0


def test_a_stream_shorter_than_a_clip_starts_again(loaded, model, write_ramp, tmp_path):
    (prediction,) = predict_camera(loaded, write_ramp(tmp_path / "short.avi", 3), 3, None)
    probabilities = np.sort(expected(model, 6 * np.array([0, 2, 1, 0]) + 3))[::-1]
    np.testing.assert_allclose(prediction.probabilities, probabilities, rtol=0, atol=1e-5)


class EndlessCamera:
    """Returns frames without end, as a camera does."""

    name = "camera:7"
    is_closed = False

    def __init__(self, source):
        assert source == 7

    def read(self):
        return np.zeros((48, 64, 3), np.uint8)

    def close(self):
        type(self).is_closed = True


def test_a_camera_is_watched_for_as_long_as_is_said_and_given_back(run_folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("vswin.inference.camera.Camera", EndlessCamera)
    monkeypatch.setattr(EndlessCamera, "is_closed", False)
    predictions = run_predict(
        ["camera:7"], str(run_folder), seconds=0.5, outputs=Outputs(csv=tmp_path / "p.csv"), top_k=1
    )
    assert predictions
    assert predictions[-1].seconds <= 0.5
    assert EndlessCamera.is_closed
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "path,seconds,class_1,probability_1,error"
    assert "camera:7: Ctrl-C ends" in capsys.readouterr().out


def test_ctrl_c_is_the_usual_end(run_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("vswin.inference.camera.Camera", EndlessCamera)
    monkeypatch.setattr(EndlessCamera, "is_closed", False)
    shown = []

    def interrupt(console, prediction):
        shown.append(prediction)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "print_prediction", interrupt)
    assert len(run_predict(["camera:7"], str(run_folder), outputs=Outputs(csv=tmp_path / "p.csv"))) == 2
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 3
    assert EndlessCamera.is_closed


def test_a_consumer_that_stops_gives_the_camera_back(loaded, monkeypatch):
    monkeypatch.setattr("vswin.inference.camera.Camera", EndlessCamera)
    monkeypatch.setattr(EndlessCamera, "is_closed", False)
    with closing(predict_camera(loaded, 7, 1, None)) as predictions:
        next(predictions)
    assert EndlessCamera.is_closed


def test_without_a_camera_it_is_said_what_to_look_at(loaded, run_folder, tmp_path):
    with pytest.raises(InputError, match=r"camera:99 cannot be opened: no such camera is attached"):
        list(predict_camera(loaded, 99, 1, None))
    with pytest.raises(InputError, match="--save goes with files"):
        run_predict(["camera"], str(run_folder), outputs=Outputs(save=tmp_path / "saved"))


def test_a_camera_without_frames_is_an_error(loaded, monkeypatch):
    monkeypatch.setattr("vswin.inference.camera.Camera", EndlessCamera)
    monkeypatch.setattr(EndlessCamera, "read", lambda self: None)
    with pytest.raises(InputError, match="camera:7 gives no frames"):
        list(predict_camera(loaded, 7, 1, None))
