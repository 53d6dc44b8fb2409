import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vswin import cli
from vswin.errors import InputError
from vswin.runs.compare import run_compare


@pytest.fixture
def outputs(make_run, monkeypatch, tmp_path):
    config = {"epochs": 2, "seed": 0, "optimizer": {"learning_rate": 0.001}}
    make_run("a", config=config, top1=[0.5, 0.75], hits="1" * 20 + "0" * 20)
    make_run("b", config=config | {"seed": 1}, top1=[0.5, 0.875], hits="1" * 30 + "0" * 10)
    make_run("c", config=config, top1=[0.25])
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


def test_mistakes_are_said_before_anything_is_printed(outputs, capsys):
    for arguments, options, words in (
        (["outputs/a"], {}, "this is one run"),
        (["outputs/a", "outputs/a"], {}, "this is one run"),
        (["outputs/a", "outputs/x"], {}, "outputs/x: there is no such folder"),
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
        "print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"})
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
