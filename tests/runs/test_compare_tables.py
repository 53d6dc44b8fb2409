import io

import pytest
from rich.console import Console

from vswin.runs.compare_tables import print_differences, print_environment, print_pairs, print_runs
from vswin.runs.differences import Difference, config_differences, environment
from vswin.runs.files import read_run
from vswin.runs.pairs import compare_pairs

LONG = "2026-11-29_014810_swin_base_w16_kinetics400_" + "x" * 60


@pytest.fixture
def runs(make_run):
    config = {"epochs": 3, "seed": 0, "init_from": None}
    folders = [
        make_run("a", config=config, top1=[0.5, 0.75, 0.625], hits="1" * 30 + "0" * 10, devices="2 GPUs"),
        make_run(LONG, config=config | {"seed": 1}, top1=[0.25], hits="0" * 20 + "1" * 20, devices="CPU"),
        make_run("new", config=config),
        make_run("published", hits="1" * 40),
    ]
    return [read_run(label, folder.name, folder) for label, folder in zip("abcd", folders, strict=True)]


def lines_of(print_it, *arguments, width=80, **options):
    text = io.StringIO()
    print_it(Console(file=text, width=width, highlight=False, **options), *arguments)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def print_all(console, runs):
    print_runs(console, runs)
    print_differences(console, runs, config_differences(runs))
    print_environment(console, runs, environment(runs))
    print_pairs(console, runs, compare_pairs(runs))


def test_a_row_for_each_run(runs):
    lines = lines_of(print_runs, runs)
    rows = {line.split()[0]: line.split() for line in lines if line[:1] in "abcd" and line[1:2] == " "}
    assert lines[0].split() == ["run", "epochs", "val", "best", "last", "top-1", "top-5", "mean", "clips/s"]
    assert rows["a"] == ["a", "a", "3/3", "75.0", "(2)", "62.5", "75.0", "95.0", "75.0", "11"]
    assert rows["b"][2:] == ["1/3", "25.0", "(1)", "25.0", "50.0", "95.0", "50.0", "10"]
    assert rows["c"] == ["c", "new", "0/3", *["-"] * 6]
    assert rows["d"] == ["d", "published", "-", "-", "-", "100.0", "95.0", "100.0", "-"]
    text = "".join("".join(line.split()[1:2] if line[:1] == "b" else line.split()) for line in lines)
    assert LONG in text
    assert lines[-1] == "no epoch is done or logged (history.csv): c"


@pytest.mark.parametrize("width", [24, 80, 200])
def test_nothing_is_wider_than_the_window_but_numbers_and_long_names(runs, width):
    lines = lines_of(print_all, runs, width=width)
    assert max(len(line) for line in lines if LONG not in line) <= max(width, 73)  # the width the numbers need
    assert "75.0 (2)" in " ".join(lines)
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for words in ("a test needs", "\x1b"):
        assert words not in text
    assert "d is better than a by 25.0 points (95 % interval" in text
    assert "no predictions.csv yet: c (vswin evaluate run=FOLDER writes one)" in text


def test_each_value_stands_once_with_the_runs_that_have_it(runs):
    rows = [
        Difference("init_from", ["null", "swin_tiny_patch244_window877_kinetics400_1k", "/data/" + "x" * 100, "null"]),
        Difference("seed", ["0", "1", "0", "-"]),
    ]
    assert lines_of(print_differences, runs, rows)[1:] == [
        "What differed",
        "no config.yaml, so nothing is known of the training: d",
        "init_from: null (a, d); swin_tiny_patch244_window877_kinetics400_1k (b);",
        # Longer than a line, and still unbroken.
        "   /data/" + "x" * 100,
        "   (c)",
        "seed: 0 (a, c); 1 (b); - (d)",
    ]


def test_versions_and_devices(runs):
    assert lines_of(print_environment, runs, environment(runs)) == [
        "devices of the training: 2 GPUs (a); CPU (b)",
        "vswin of the evaluation: 0.1.0 (c not known)",
        "tensorflow of the evaluation: 2.21.0 (c not known)",
    ]


def test_runs_that_differ_in_nothing_and_runs_without_predictions(runs):
    assert "nothing in the configuration, but for where the runs write" in lines_of(print_differences, runs[:1], [])
    lines = lines_of(print_pairs, runs[2:3], [])
    assert lines[2:] == [
        "no predictions.csv yet: c (vswin evaluate run=FOLDER writes one)",
        "a test needs two runs with one",
    ]


def test_names_and_values_from_elsewhere_are_shown_as_they_are_and_obeyed_by_nobody(make_run):
    names = ["[red]x[/red]", "evil\x1b[2Jname\n\udcff", "Größe 日本語"]
    folder = make_run("a", top1=[0.5], hits="10")
    runs = [read_run(label, name, folder) for label, name in zip("abc", names, strict=True)]
    row = Difference("key", ["[bold]1", "\x1b[31m2", "\x07"])
    for width in (30, 80):
        lines = lines_of(print_runs, runs, width=width) + lines_of(print_differences, runs, [row], width=width)
        text = "".join(lines)
        assert text.isprintable()
        for words in ("[red]x[/red]", "[bold]1", "\\x1b[31m2", "\\x07"):
            assert words in text


def test_colours_on_a_terminal_alone(runs, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in "".join(lines_of(print_all, runs, force_terminal=True))
    assert "\x1b" not in "".join(lines_of(print_all, runs))
