import os
import subprocess
import sys
from pathlib import Path

import pytest

import vswin
from vswin import cli
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors
from vswin.zoo import ModelSize

ROOT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from vswin.cli import main; main()", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, env=environment)


def test_version_and_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vswin", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert capsys.readouterr().out == f"vswin {vswin.__version__}\n"
    monkeypatch.setattr(sys, "argv", ["vswin"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    printed = capsys.readouterr().out
    for words in (
        "train",
        "evaluate",
        "predict",
        "extract",
        "compare",
        "explain",
        "tune",
        "models",
        "inspect",
        "convert",
        "vswin COMMAND --help",
    ):
        assert words in printed


def test_an_unknown_command_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vswin", "trian"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    printed = capsys.readouterr().err
    for words in ("invalid choice: 'trian'", "train", "export"):
        assert words in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["models"],
        ["models", "--json"],
        ["export", "--help"],
        ["predict", "--help"],
        ["extract", "--help"],
        ["compare", "--help"],
        ["explain", "--help"],
        ["tune", "lr", "--help"],
    ],
)
def test_nothing_waits_for_tensorflow_that_does_not_need_it(arguments, tmp_path):
    code = (
        f"import sys; from vswin.cli import main; sys.argv = ['vswin', *{arguments!r}]\n"
        "try: main()\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.slow
def test_a_file_is_inspected_and_converted_on_the_command_line(tmp_path):
    model = vswin.build_model(ModelSize(8, (1, 2), (1, 2), window_size=(2, 3, 3)), num_classes=2)
    save_checkpoint(tmp_path / "a.h5", official_tensors(model), {"class_names": ["jump", "run"]})
    done = run("convert", "a.h5", "b.safetensors", cwd=tmp_path)
    count = len(official_tensors(model))
    assert f"wrote b.safetensors: {count} weights of a.h5 (vswin)" in done.stdout, done.stderr
    done = run("inspect", "b.safetensors", "--tensors", cwd=tmp_path)
    for words in ("official", "classes:        2: jump, run", "cls_head.fc_cls.bias [2] float32"):
        assert words in done.stdout, done.stderr
    done = run("inspect", "b.safetensors", cwd=tmp_path, COLUMNS="40")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "network:        embed_dim 8, depths [1,\n  2], heads [1, 2], patches [2, 4, 4]\n" in done.stdout
    done = run("convert", "a.h5", "b.safetensors", cwd=tmp_path)
    assert done.stderr.endswith("error: b.safetensors exists; name another file, or delete it first\n")
    done = run("inspect", "gone.pth", cwd=tmp_path)
    assert done.returncode == 1
    assert "gone.pth" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_of_a_command_lists_groups_and_keys_from_any_folder(command, tmp_path):
    done = run(command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    datasets = "dataset: folder, hmdb51, kinetics400, kinetics600, motion, sthv2, ucf101"
    for words in ("model: swin_base", datasets, "num_frames: 8"):
        assert words in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_help_does_not_wait_for_tensorflow(script, tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("script", "override", "words"),
    [
        ("train.py", "model=swin_tinny", "error: no model is called 'swin_tinny'; did you mean 'swin_tiny'"),
        ("train.py", "clip.nun_frames=8", "error: there is no key 'clip.nun_frames'; did you mean 'clip.num_frames'"),
        ("evaluate.py", "dataset=kinetics", "did you mean 'kinetics600' or 'kinetics400'"),
        ("train.py", "epochs=many", "epochs"),
    ],
)
def test_wrong_words_on_the_command_line_are_answered_without_a_traceback(script, override, words, tmp_path):
    command = [sys.executable, str(ROOT / script), override]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
