"""A reader who runs the commands of a document one after another."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from documents import DOCUMENTS, ROOT, python_blocks, read, standing_alone

SMALL_MODELS = Path(__file__).parent / "small_models"

# The beginnings of commands that are not executed, and the reason.
NOT_EXECUTED = {
    ".venv/bin/pip install ": "needs a network; below is what the reader has instead",
    "pip install 'vswin[slurm]'": "needs a network; the environment of the tests has it",
    "make test": "it is the suite that this belongs to",
    "python benchmarks/peers/": "needs 9 GB of other frameworks; tests/benchmarks has stand-ins for them",
    "vswin splits ": "takes six runs; tests/test_splits.py and tests/behaviour/test_figures.py have it on small videos",
    "sbatch ": "needs Slurm; tests/test_cluster_files.py trains with the file and a stand-in for srun",
    "python train.py ...": "needs a second host; tests/test_workers_end_to_end.py starts workers by TF_CONFIG",
    "python train.py --multirun hydra/launcher=submitit_": "needs Slurm; tests/test_sweeps.py has submitit_local",
    "wandb ": "needs an account; tests/test_sweeps.py trains with the command that an agent makes of the file",
}
# What the reader does first: install dependencies, or copy an earlier run.
BEFORE = {
    "make train": f"echo {Path(cv2.__file__).parents[1]} > .venv/lib/python3.{sys.version_info.minor}/site-packages/"
    "dependencies.pth && touch .venv/.installed",
    "vswin compare outputs/baseline outputs/mixup": "for name in baseline mixup lr_0.001; "
    "do cp -a outputs/*_swin_base_ucf101 outputs/$name; done",
}
# The document shows that one of the two files cannot be decoded.
CODES = {"vswin predict data/motion/videos/val/zoom_in/00001.avi README.md --model outputs/<run> --top-k 3": 1}
# The files that exist at the end.
FILES = {
    ROOT / "README.md": (
        *("clips.png", "features.npz", "runs.png", "runs.json", "weights.safetensors", "my_model/saved_model.pb"),
        *("explained/jump.mp4", "high_jump/jump.npz", "attention/jump.mp4", "fast/ucf101/vswin.json"),
        *("home/.bashrc", "home/.zshrc", "home/.config/fish/completions/vswin.fish"),
    ),
    ROOT / "docs/own_videos.md": ("clips.png", "runs/mine/metrics.json", "predictions.csv", "annotated/new.mp4"),
    ROOT / "data/README.md": ("lists/train.csv", "lists/val.csv"),
}
# Placeholders and their values; `outputs/<run>` is the last run, see small_models/follow.py.
FILLED_IN = {"<folder>": "/data/kinetics400", "<list>": "/data/kinetics400/annotations/val.csv"}
# Downloads fail: nothing answers at the address of the proxy.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@dataclass(frozen=True)
class Step:
    """The result of a command, with the seconds it took."""

    command: str
    code: int
    output: str
    seconds: float


def executed(document: Path) -> list[str]:
    """Lists the commands of a document that are executed."""
    return [command for command in standing_alone(read(document)) if not command.startswith(tuple(NOT_EXECUTED))]


# tests/docs/test_notebook.py executes the notebook.
FOLLOWED = [document for document in DOCUMENTS if document.suffix == ".md" and executed(document)]


@dataclass(frozen=True)
class Reader:
    """Runs commands as in a new terminal, in `folder` (`places.py`), with `weights` and `configs` in `models`."""

    folder: Path
    models: Path

    def follow(self, document: Path) -> None:
        """Executes the commands of a document in order, then its programs, and checks exit codes and files."""
        commands = []
        for command in executed(document):
            commands += [BEFORE[command], command] if command in BEFORE else [command]
        for number, program in enumerate(python_blocks(read(document))):
            (self.folder / f"program{number}.py").write_text(program)
            commands.append(f"python program{number}.py")
        for command, step in zip(commands, self.run(commands), strict=True):
            print(f"{step.seconds:6.1f} s  {step.command}")
            assert step.code == CODES.get(command, 0), explain(step)
            assert "Traceback" not in step.output, explain(step)
        files = FILES.get(document, ())
        assert [file for file in files if not (self.folder / file).is_file()] == []

    def run(self, commands: Sequence[str]) -> list[Step]:
        """Runs commands in order; `/data` and `/fast` are folders below the reader's folder."""
        done = subprocess.run(
            [sys.executable, str(SMALL_MODELS / "follow.py")],
            input=json.dumps([self._place(command) for command in commands]),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return [Step(**json.loads(line)) for line in done.stdout.splitlines()]

    def _place(self, command: str) -> str:
        for placeholder, value in FILLED_IN.items():
            command = command.replace(placeholder, value)
        return re.sub(r"(?<==)/(?=data/|fast/)", f"{self.folder}/", command)

    def _environment(self) -> dict[str, str]:
        own = ("VSWIN_", "WANDB_", "PYTEST_", "PYTHON", "TF_", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return kept | NO_NETWORK | small_environment(self.models) | {"PATH": path, "HOME": str(self.folder / "home")}


def small_environment(models: Path) -> dict[str, str]:
    """Returns the variables that give every Python small models and short recipes."""
    return {
        "PYTHONPATH": os.pathsep.join([str(SMALL_MODELS), str(ROOT)]),
        "VSWIN_WEIGHTS_DIR": str(models / "weights"),
        "DOCUMENT_CONFIGS": str(models / "configs"),
    }


def explain(step: Step) -> str:
    """Returns a command and the end of its output."""
    return f"$ {step.command}\n{step.output[-3000:]}\n(code {step.code})"
