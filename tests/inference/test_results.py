import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from vswin.atomic import check_outputs
from vswin.errors import InputError
from vswin.inference.results import STDOUT, make_bad, print_prediction, printable, rank, write_csv, write_json

NAMES = ["a, b", "[bold]x[/bold]", "Größe", "gehen"]
PROBABILITIES = np.array([0.1, 0.3, 0.3, 0.3], np.float32)


def printed(prediction, **console):
    text = io.StringIO()
    print_prediction(Console(file=text, highlight=False, soft_wrap=True, **console), prediction)
    return text.getvalue()


def test_of_classes_that_are_as_likely_the_first_comes_first():
    prediction = rank("a.mp4", PROBABILITIES, NAMES, 3)
    assert prediction.labels.tolist() == [1, 2, 3]
    assert prediction.names == ["[bold]x[/bold]", "Größe", "gehen"]
    assert prediction.probabilities.tolist() == [np.float32(0.3)] * 3
    assert len(rank("a.mp4", PROBABILITIES, NAMES, 9).labels) == 4


def test_a_table_shows_names_as_they_are():
    text = printed(rank("a[1].mp4", PROBABILITIES, NAMES, 4), width=80)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "a[1].mp4"
    assert lines[1].split() == ["30.00", "%", "━━━━━━", "[bold]x[/bold]"]
    assert lines[4].split() == ["10.00", "%", "━━", "a,", "b"]


@pytest.mark.parametrize("width", [20, 30, 49])
def test_a_narrow_window_has_no_bars_and_breaks_names(width):
    names = ["a name of many words that goes on and on"] * 4
    lines = printed(rank("a.mp4", PROBABILITIES, names, 2), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert "━" not in "".join(lines)
    assert "".join("".join(lines[1:]).split()).count("goesonandon") == 2


def test_nothing_but_text_is_printed_where_there_is_no_terminal():
    prediction = rank("evil\x1b[2Jname\n\udcff.mp4", PROBABILITIES, ["\x07bell", *NAMES[1:]], 4, seconds=1.25)
    text = printed(prediction, width=80) + printed(make_bad("b\r.mp4", "not a \x1b[31mvideo"), width=80)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.startswith("evil\\x1b[2Jname\\n\\udcff.mp4  1.2 s\n")
    assert text.endswith("b\\r.mp4: passed over, not a \\x1b[31mvideo\n")
    assert printable("Größe 跑") == "Größe 跑"


def test_csv_and_json_are_read_back(tmp_path):
    predictions = [rank("x,1.mp4", PROBABILITIES, NAMES, 2), make_bad("\udcff.mp4", "truncated (1 of 9)")]
    write_csv(tmp_path / "p.csv", predictions, 2)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        good, bad = csv.DictReader(file)
    assert good == {
        "path": "x,1.mp4",
        "class_1": "[bold]x[/bold]",
        "probability_1": "0.300000",
        "class_2": "Größe",
        "probability_2": "0.300000",
        "error": "",
    }
    assert (bad["path"], bad["class_1"], bad["error"]) == ("\\udcff.mp4", "", "truncated (1 of 9)")

    write_json(tmp_path / "p.json", predictions, {"model": "run"})
    content = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert content["model"] == "run"
    assert content["predictions"][0]["path"] == "x,1.mp4"
    assert content["predictions"][0]["top"][1] == {
        "class": "Größe",
        "label": 2,
        "probability": pytest.approx(0.3, abs=1e-7),
    }
    assert content["predictions"][1]["error"] == "truncated (1 of 9)"


def test_what_a_camera_showed_has_its_time(tmp_path):
    write_csv(tmp_path / "p.csv", [rank("camera:0", PROBABILITIES, NAMES, 1, seconds=2.5)], 1)
    header, row = (tmp_path / "p.csv").read_text().splitlines()
    assert header == "path,seconds,class_1,probability_1,error"
    assert row == "camera:0,2.500,[bold]x[/bold],0.300000,"


def test_outputs_are_checked_before_the_work(tmp_path):
    (tmp_path / "there.csv").touch()
    check_outputs([tmp_path / "new" / "folder" / "a.csv", STDOUT], False)
    assert (tmp_path / "new" / "folder").is_dir()
    with pytest.raises(InputError, match=r"there.csv exists; name another file, or give --overwrite"):
        check_outputs([tmp_path / "there.csv"], False)
    check_outputs([tmp_path / "there.csv"], True)
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        check_outputs([tmp_path], True)
    with pytest.raises(InputError, match="cannot be made"):
        check_outputs([tmp_path / "there.csv" / "a.csv"], False)
