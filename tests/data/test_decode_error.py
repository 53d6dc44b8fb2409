import pickle
import time

import pytest

from vswin.data.decode_error import DecodeError, TimeLimit


def test_error_names_file_cause_and_detail() -> None:
    error = DecodeError("a.mp4", "truncated", "3 of 9 frames")
    assert (error.path, error.cause, error.detail) == ("a.mp4", "truncated", "3 of 9 frames")
    assert error.reason == "truncated (3 of 9 frames)"
    assert str(error) == "a.mp4: truncated (3 of 9 frames)"
    assert str(DecodeError("a.mp4", "missing")) == "a.mp4: missing"


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "truncated", "3 of 9 frames")))
    assert str(error) == "a.mp4: truncated (3 of 9 frames)"


def test_time_limit_ends_only_what_takes_longer() -> None:
    TimeLimit("a.mp4", 60).check()
    TimeLimit("a.mp4", None).check()
    limit = TimeLimit("a.mp4", 0.01)
    time.sleep(0.02)
    with pytest.raises(DecodeError, match=r"^a\.mp4: too slow \(not read within 0\.01 s\)$"):
        limit.check()
