"""Tests of `vswin compare`: its arguments, tables, JSON and plot."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from vswin import cli
from vswin.errors import InputError
from vswin.runs.compare import as_json, label_runs, name_folders, print_comparison, run_compare
from vswin.runs.figures import (
    Figures,
    config_differences,
    known_environment,
    protocol_differences,
    sum_up,
)
from vswin.runs.files import list_runs, read_run
from vswin.runs.pairs import compare_pairs

LONG = "2026-11-29_014810_swin_base_w16_kinetics400_" + "x" * 60


@pytest.fixture
def outputs(make_run, monkeypatch, tmp_path):
    config = {"epochs": 2, "seed": 0, "optimizer": {"learning_rate": 0.001}}
    make_run("a", config=config, top1=[0.5, 0.75], hits="1" * 20 + "0" * 20)
    make_run("b", config=config | {"seed": 1}, top1=[0.5, 0.875], hits="1" * 30 + "0" * 10)
    make_run("c", config=config, top1=[0.25])
    make_run("no_run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "outputs"


def test_from_the_command_line(outputs, monkeypatch, capsys):
    arguments = ["compare", "outputs/a", "outputs/*", "--all-pairs", "--plot", "new/p.png", "--json", "new/c.json"]
    monkeypatch.setattr(sys, "argv", ["vswin", *arguments])
    cli.main()
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    for words in (
        "seed: 0 (a, c); 1 (b)",
        "b is better than a by 25.0 points (95 % interval 6.2 to ",
        ", p = 0.002, 40 videos).",
        "no predictions.csv yet: c",
        "plot: new/p.png",
    ):
        assert words in text
    assert printed.err == ""
    assert (outputs.parent / "new/p.png").stat().st_size > 10_000
    content = json.loads((outputs.parent / "new/c.json").read_text())
    assert content["differences"] == {"seed": {"a": "0", "b": "1", "c": "0"}}
    assert [run["name"] for run in content["runs"]] == ["a", "b", "c"]
    assert content["pairs"][0]["num_only_second"] == 10

    with pytest.raises(SystemExit, match=r"error: new/p\.png exists; name another file, or give --overwrite"):
        cli.main()
    monkeypatch.setattr(sys, "argv", ["vswin", *arguments, "--overwrite"])
    cli.main()


def test_json_in_a_pipe_has_nothing_else_beside_it(outputs, capsys):
    run_compare(["outputs/a", "outputs/b"], json_file=Path("-"))
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["pairs"]) == 1
    assert "b is better than a" in printed.err


def test_mistakes_are_named_before_anything_is_printed(outputs, capsys):
    (outputs / "link").symlink_to(outputs / "b")
    for arguments, options, words in (
        (["outputs/a"], {}, "this is one run"),
        (["outputs/b", "outputs/link"], {}, "outputs/b outputs/link: this is one run; name another one"),
        (["outputs/a", "outputs/gone"], {}, "outputs/gone: there is no such folder; runs lie in outputs/"),
        (["outputs/a", "outputs/x*"], {}, r"outputs/x\*: no run matches this pattern"),
        (["outputs/no_run"], {}, "outputs/no_run is not the folder of a run: it has none of config.yaml, history.csv"),
        (["outputs"], {}, r"there are runs in it: 'outputs/\*'"),
        (["outputs/a/history.csv"], {}, "there is no such folder"),
        (["outputs/*"], {"plot": Path("p.gif")}, "the name of a picture ends in .png, .pdf, .svg"),
        (["outputs/*"], {"json_file": outputs}, "is a folder; name a file in it"),
    ):
        with pytest.raises(InputError, match=words):
            run_compare(arguments, **options)
    (outputs / "b" / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"outputs/b/metrics\.json is damaged"):
        run_compare(["outputs/*"])
    assert capsys.readouterr().out == ""


def test_no_tensorflow_and_no_control_characters_in_a_pipe(outputs):
    code = (
        "import sys; from vswin.cli import main; sys.argv = ['vswin', 'compare', 'outputs/*', '--plot', 'p.png']\n"
        "main()\n"
        "print('tensorflow' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_patterns_name_runs_and_each_run_counts_once(outputs, make_run):
    make_run("[ab]", top1=[0.5])
    (outputs / "link").symlink_to(outputs / "b")
    again = ["outputs/b", str(outputs / "[abc]"), "outputs/b/", "outputs/link"]
    for arguments, names in (
        (["outputs/*"], ["[ab]", "a", "b", "c"]),
        (["outputs/c", "outputs/[!c]"], ["c", "a", "b"]),
        (again, ["b", "a", "c"]),
        # A name with wildcards is a name first.
        (["outputs/[ab]", "outputs/a"], ["[ab]", "a"]),
    ):
        assert [folder.name for folder in list_runs(arguments)] == names


def test_names_tell_runs_apart_and_letters_do_not_run_out(tmp_path):
    folders = [tmp_path / name for name in ("x/split_1", "y/split_1", "y/split_2")]
    assert name_folders(folders) == [os.path.join("x", "split_1"), os.path.join("y", "split_1"), "split_2"]
    labels = label_runs(1_000)
    assert labels[:2] == ["a", "b"]
    assert labels[25:28] == ["z", "aa", "ab"]
    assert len(labels) == len(set(labels)) == 1_000


@pytest.fixture
def runs(make_run):
    config = {"epochs": 3, "seed": 0, "init_from": None}
    folders = [
        make_run("a", config=config, top1=[0.5, 0.75, 0.625], hits="1" * 30 + "0" * 10, devices="2 GPUs"),
        make_run(LONG, config=config | {"seed": 1}, top1=[0.25], hits="0" * 20 + "1" * 20, devices="CPU"),
        make_run("new", config=config | {"init_from": "/data/" + "x" * 100}),
        make_run("published", hits="1" * 40),
    ]
    return [read_run(label, folder.name, folder) for label, folder in zip("abcd", folders, strict=True)]


def print_lines(runs, width=80, **options):
    text = io.StringIO()
    print_comparison(Console(file=text, width=width, highlight=False, **options), runs, compare_pairs(runs))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_printed_comparison(runs):
    lines = print_lines(runs)
    rows = {line.split()[0]: line.split() for line in lines if line[:1] in "abcd" and line[1:3] == "  "}
    assert lines[0].split() == ["run", "epochs", "val", "best", "last", "top-1", "top-5", "mean", "clips/s"]
    assert rows["a"] == ["a", "a", "3/3", "75.0", "(2)", "62.5", "75.0", "95.0", "75.0", "11"]
    assert rows["b"][2:] == ["1/3", "25.0", "(1)", "25.0", "50.0", "95.0", "50.0", "10"]
    assert rows["c"] == ["c", "new", "0/3", *["-"] * 6]
    assert rows["d"] == ["d", "published", "-", "-", "-", "100.0", "95.0", "100.0", "-"]
    start = lines.index("no epoch is complete, or history.csv is missing: c")
    assert lines[start + 2 : start + 11] == [
        "What differed",
        "no config.yaml, so the settings of the training are unknown: d",
        "seed: 0 (a, c); 1 (b); - (d)",
        "init_from: null (a, b);",
        # Longer than a line, and still unbroken.
        "   /data/" + "x" * 100,
        "   (c); - (d)",
        "devices of the training: 2 GPUs (a); CPU (b)",
        "vswin of the evaluation: 0.1.0 (c not known)",
        "tensorflow of the evaluation: 2.21.0 (c not known)",
    ]
    alone = print_lines(runs[2:3])
    assert "nothing in the configuration, apart from where the runs write" in alone
    assert alone[-2:] == [
        "no predictions.csv yet: c (vswin evaluate run=FOLDER writes one)",
        "a test needs two runs with predictions.csv",
    ]


@pytest.mark.parametrize("width", [24, 80, 200])
def test_nothing_is_wider_than_the_window_but_numbers_and_long_names(runs, width, monkeypatch):
    lines = print_lines(runs, width)
    assert max(len(line) for line in lines if "x" * 60 not in line) <= max(width, 73)  # the width the numbers need
    text = " ".join(" ".join(lines).split())
    assert LONG in "".join("".join(line.split()[1:2] if line[:1] == "b" else line.split()) for line in lines)
    for words in ("75.0 (2)", "d is better than a by 25.0 points (95 % interval", "no predictions.csv yet: c (vswin"):
        assert words in text
    for words in ("a test needs", "\x1b", "…"):
        assert words not in text
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in "".join(print_lines(runs, width, force_terminal=True))


@pytest.mark.parametrize("width", [30, 80])
def test_names_and_values_of_others_are_shown_and_not_obeyed(make_run, width):
    names = ["[red]x[/red]", "evil\x1b[2Jname\n\udcff", "Größe 日本語"]
    folders = [
        make_run(label, config={"key": value}, hits="10")
        for label, value in zip("abc", ["[bold]1", "\x1b[31m2", "\x07"], strict=True)
    ]
    runs = [read_run(label, name, folder) for label, name, folder in zip("abc", names, folders, strict=True)]
    text = "".join(print_lines(runs, width))
    assert text.isprintable()
    for words in ("[red]x[/red]", "[bold]1", "\\x1b[31m2", "\\x07"):
        assert words in text


def test_the_figures_of_a_training(make_run):
    def summed_up(name, **contents):
        return sum_up(read_run("a", "a", make_run(name, **contents)))

    assert summed_up("a", config={"epochs": 5}, top1=[0.25, 0.75, 0.75, 0.5]) == Figures(
        4, 5, 0.75, 2, False, 0.5, 11.5, "val_top1", 0.75
    )
    # An average of the weights counts where it is better.
    assert summed_up("b", top1=[0.25, 0.75], ema=[0.5, 0.8])[2:5] == (0.8, 2, True)
    assert summed_up("c", top1=[0.25, 0.75], ema=[0.75, 0.75])[2:5] == (0.75, 2, False)
    assert summed_up("d", config={"epochs": 5}) == Figures(0, 5, None, None, False, None, None)
    folder = make_run("e")
    (folder / "history.csv").write_text("epoch,val_top1\r\n0,nan\r\n2,nan\r\n")
    assert sum_up(read_run("e", "e", folder))[:4] == (3, None, None, None)


def test_the_best_epoch_is_that_of_the_monitored_figure_and_its_top1_is_shown(make_run):
    folder = make_run("a", config={"monitor": "val_loss"}, hits="10")
    columns = "epoch,val_loss,val_ema_loss,val_top1,val_ema_top1"
    (folder / "history.csv").write_text(f"{columns}\r\n0,2,1.5,0.75,0.5\r\n1,3,,0.9,0.9\r\n")
    runs = [read_run("a", "a", folder), read_run("b", "b", make_run("b", top1=[0.25], hits="10"))]
    figures = sum_up(runs[0])
    assert (figures.best_top1, figures.best_epoch, figures.is_average, figures.best) == (0.5, 1, True, 1.5)
    lines = print_lines(runs)
    assert any("50.0 (1)" in line for line in lines)
    assert "best epoch by val_loss, val best is its top-1: a" in lines


def test_everything_is_json_even_what_is_no_number(make_run):
    folder = make_run("a", hits="1100")
    (folder / "history.csv").write_text("epoch,val_top1,clips_per_sec\r\n0,0.5,inf\r\n1,nan,\r\n")
    runs = [
        read_run("a", "a", folder),
        read_run("b", "b", make_run("b", hits="1111", protocol={"new": [{"x": float("nan")}]})),
        read_run("c", "c", make_run("c", hits="11", labels=["x", "y"], classes=["x", "y"])),
    ]
    content = json.loads(json.dumps(as_json(runs, compare_pairs(runs)), allow_nan=False))
    assert content["runs"][0]["history"] == {"epoch": [1, 2], "val_top1": [0.5, None], "clips_per_sec": [None, None]}
    assert content["runs"][0]["training"]["best_top1"] == 0.5
    assert content["runs"][0]["training"]["clips_per_sec"] is None
    assert content["runs"][1]["test"]["top1"] == 1.0
    assert content["runs"][1]["test"]["protocol"]["num_clips"] == 4
    assert content["runs"][1]["test"]["protocol"]["new"] == [{"x": None}]
    first, refused = content["pairs"]
    assert first["difference"] == 0.5
    assert first["p_value"] == first["corrected_p"] == 0.5
    assert first["interval"] == pytest.approx([-0.41, 0.85], abs=0.01)
    assert first["sentence"].startswith("b and a: no difference that 4 videos could show")
    assert set(refused) == {"first", "second", "problem", "sentence"}


def test_what_differs_in_the_configuration(make_run):
    base = {
        "model": {"learning_rate": 0.001, "freeze": [], "init_from": None},
        **{"optimizer": {"learning_rate": 0.001}, "dataset": {"epochs": 30}, "logger": {"csv": True}},
        **{"epochs": 30, "resume": False, "output_dir": "a"},
    }
    # Defaults of a model or data set, logs and the output folder change no result.
    other = {
        "model": {"learning_rate": 0.01, "freeze": ["backbone.*", [None, True, 0.5]]},
        **{"optimizer": {"learning_rate": 1e-8}, "dataset": {"epochs": 10}, "logger": {"csv": False}},
        **{"resume": True, "output_dir": "b", "gone": 1},
    }
    folders = [make_run("a", config=base), make_run("b", config=other), make_run("c", top1=[1.0])]
    runs = [read_run(folder.name, folder.name, folder) for folder in folders]
    assert {row.key: row.values for row in config_differences(runs)} == {
        "model.freeze": ["[]", "[backbone.*,[null,true,0.5]]", "-"],
        "optimizer.learning_rate": ["0.001", "1e-08", "-"],
        "epochs": ["30", "-", "-"],
        "gone": ["-", "1", "-"],
    }
    assert config_differences(runs[::2]) == protocol_differences(runs[::2]) == known_environment(runs[::2]) == []


def test_what_differs_in_the_evaluation(make_run):
    dataset = {"name": "ucf101", "root": "/x", "split": 2, "list_hash": "f"}
    folders = [
        make_run("a", hits="10", devices="CPU (x86_64)"),
        make_run("b", hits="10", devices="4 GPUs", protocol={"dataset": dataset, "vswin": "0.2.0"}),
        make_run("c", top1=[0.5]),
    ]
    runs = [read_run(folder.name, folder.name, folder) for folder in folders]
    assert {row.key: row.values for row in protocol_differences(runs)} == {
        "test dataset": ["folder", "ucf101", "-"],
        "test split": ["null", "2", "-"],
    }
    assert {row.key: row.values for row in known_environment(runs)} == {
        "devices of the training": ["CPU (x86_64)", "4 GPUs", "-"],
        "vswin of the evaluation": ["0.1.0", "0.2.0", "-"],
        "tensorflow of the evaluation": ["2.21.0", "2.21.0", "-"],
    }
