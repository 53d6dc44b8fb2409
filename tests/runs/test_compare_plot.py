import subprocess
import sys
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
    assert len({_look(place)["color"] for place in range(8)}) == 8
    for place in range(39):
        assert _look(place)["color"] != _look(place + 1)["color"]
        assert _look(place)["linestyle"] != _look(place + 1)["linestyle"]


@pytest.mark.parametrize("ending", ["pdf", "SVG"])
def test_other_formats(make_run, tmp_path, ending):
    draw_comparison(tmp_path / f"plot.{ending}", [read_run("a", "a", make_run("a", top1=[0.1, 0.2]))])
    assert (tmp_path / f"plot.{ending}").read_bytes()[:5] in (b"%PDF-", b"<?xml")


def test_nothing_to_draw(make_run, tmp_path):
    with pytest.raises(InputError, match=r"none of the runs has a history\.csv yet"):
        draw_comparison(tmp_path / "plot.png", [read_run("a", "a", make_run("a", hits="10"))])
    assert not (tmp_path / "plot.png").exists()


def test_no_display_is_asked_for():
    code = "import sys, vswin.runs.plots; print('matplotlib.pyplot' in sys.modules, 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False\n"
