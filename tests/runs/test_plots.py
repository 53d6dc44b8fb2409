import warnings

import cv2
import numpy as np
import pytest

from vswin.errors import InputError
from vswin.runs.files import read_run
from vswin.runs.plots import _look, draw_comparison


def test_eight_runs_with_odd_names_are_drawn(make_run, tmp_path):
    names = ["$x_{", "[red]", "_hidden", "日本語 🎥", "a\x1b[2Jb", "x" * 200, "b", "one epoch"]
    runs = []
    for number, name in enumerate(names):
        top1 = [0.1 * number] if number == 7 else [0.1, 0.2 + 0.05 * number, float("nan"), 0.4]
        runs.append(read_run("abcdefgh"[number], name, make_run(str(number), top1=top1)))
    runs.append(read_run("i", "unfinished", make_run("8", config={"epochs": 1})))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_comparison(tmp_path / "plot.png", runs)
    picture = cv2.imread(str(tmp_path / "plot.png"))
    height, width = picture.shape[:2]
    assert 1_300 < width < 1_700
    assert 600 < height < 1_200
    # The curves of the first and the second run, in blue and vermilion (BGR).
    for color in ((0xB2, 0x72, 0x00), (0x00, 0x5E, 0xD5)):
        assert (np.abs(picture.astype(int) - color).sum(axis=2) < 12).sum() > 500
    assert not list(tmp_path.glob(".*"))


def test_every_run_has_a_look_of_its_own():
    looks = {(look["color"], look["linestyle"]) for look in map(_look, range(40))}
    assert len(looks) == 40
    assert len({_look(index)["color"] for index in range(8)}) == 8
    for index in range(39):
        assert _look(index)["color"] != _look(index + 1)["color"]
        assert _look(index)["linestyle"] != _look(index + 1)["linestyle"]


def test_other_formats_and_nothing_to_draw(make_run, tmp_path):
    for ending, start in (("pdf", b"%PDF-"), ("SVG", b"<?xml")):
        draw_comparison(tmp_path / f"plot.{ending}", [read_run("a", "a", make_run(ending, top1=[0.1, 0.2]))])
        assert (tmp_path / f"plot.{ending}").read_bytes()[:5] == start
    with pytest.raises(InputError, match=r"none of the runs has a history\.csv yet"):
        draw_comparison(tmp_path / "plot.png", [read_run("a", "a", make_run("a", hits="10"))])
    assert not (tmp_path / "plot.png").exists()
