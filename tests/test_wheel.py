"""The wheel: its files, its requirements, and that its commands work without a checkout."""

import ast
import csv
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "dataset.root=videos",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=4",
    "epochs=1",
)

# Libraries that are part of another library's interface.
PART_OF = {"omegaconf": "hydra-core", "google": "tensorflow", "urllib3": "requests"}
# Imported only if the user chooses them, with a message that says what to install.
CHOSEN = {"tensorflow_addons", "apache_beam", "pyarrow"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Builds the source distribution, and the wheel from it, as for an upload: in a separate environment."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("vswin-*.whl")
    return wheel


@pytest.fixture(scope="module")
def built_version(wheel: Path) -> str:
    """Returns git's current version; this environment has the version of its installation."""
    return wheel.name.split("-")[1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """Installs the wheel into a new environment and returns the folder of its commands.

    A path file adds the libraries of the test environment, but not the checkout: downloading them took six minutes and
    2.8 GB. Another test checks that the wheel requires everything it imports.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (dependencies,) = {Path(np.__file__).parents[1], Path(cv2.__file__).parents[1]}
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Makes a folder with six videos each of two classes, far from the checkout."""
    for label, level in (("bright", 200), ("dark", 40)):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for i in range(6):
            path = str(tmp_path / "videos" / label / f"{i}.avi")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 40))
            for t in range(12):
                writer.write(np.full((40, 48, 3), level + 4 * i + t, np.uint8))
            writer.release()
    return tmp_path


def run(command: list[str], cwd: Path) -> str:
    """Runs a command as from a new terminal, without variables of the test environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env=kept | {"PATH": path, "WANDB_MODE": "offline"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_what_its_commands_need_and_nothing_else(wheel, built_version):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {f"vswin/{path.relative_to(ROOT / 'vswin')}" for path in (ROOT / "vswin").rglob("*.py")}
    for folder in ("configs", "data"):
        described = (path for path in (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".md", ".txt"))
        inside |= {f"vswin/_root/{path.relative_to(ROOT)}" for path in described if "videos" not in path.parts}
    assert names >= inside | {"vswin/weights/published.json", "vswin/_root/train.py", "vswin/_root/evaluate.py"}
    assert "vswin/py.typed" in names  # PEP 561: without it, type checkers treat everything in vswin as Any
    assert {name.split("/")[0] for name in names} == {"vswin", f"vswin-{built_version}.dist-info"}
    assert {Path(name).suffix for name in names - inside} <= {
        ".json",
        ".py",
        ".txt",
        ".csv",
        "",
        ".md",
        ".typed",
        ".css",
        ".j2",
    }


def test_the_source_distribution_holds_the_tests_and_no_leftovers(built):
    (path,) = built.glob("vswin-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_wheel.py", "vswin/cli.py"} <= names
    assert {"vswin/py.typed", "CITATION.cff"} <= names
    assert {name for name in names if name.startswith((".hypothesis", ".pytest", "outputs", ".venv"))} == set()


def test_the_wheel_asks_for_every_library_that_it_imports(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    asked_names = {normal(re.match(r"[\w.-]+", entry)[0]) for entry in asked if "extra ==" not in entry}
    imported = set().union(*(top_level_imports(source) for source in sources))
    third_party = imported - sys.stdlib_module_names - {"vswin", *CHOSEN}
    owners = importlib.metadata.packages_distributions()
    assert {"tensorflow", "tf_keras", "hydra", "cv2", "wandb"} <= third_party
    names = {name: {normal(PART_OF.get(name, owner)) for owner in owners[name]} for name in third_party}
    missing = {name for name in third_party if not names[name] & asked_names}
    assert missing == set()


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def top_level_imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def git(*arguments: str, cwd: Path) -> None:
    author = ("-c", "user.name=Nobody", "-c", "user.email=nobody@localhost")
    subprocess.run(["git", *author, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copies what a build needs, without git."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "vswin", folder / "vswin", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("videos*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "train.py", "evaluate.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def build_sdist(folder: Path, output: Path) -> str:
    """Builds a source distribution with this environment's backend and returns its version."""
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(output), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = output.glob("vswin-*.tar.gz")
    return path.name.removeprefix("vswin-").removesuffix(".tar.gz")


def test_the_version_is_that_of_the_tag_or_of_the_commit(copy, tmp_path):
    assert build_sdist(copy, tmp_path / "without git") == "0.1.dev0"
    with pytest.MonkeyPatch.context() as patch:
        (variable,) = re.findall(r"RUN (\w+)=\"\$VERSION\"", (ROOT / "Dockerfile").read_text())
        patch.setenv(variable, "")
        assert build_sdist(copy, tmp_path / "image") == "0.1.dev0"
        patch.setenv(variable, "0.3.0")
        assert build_sdist(copy, tmp_path / "image of a release") == "0.3.0"
    git("init", "--quiet", cwd=copy)
    git("add", ".", cwd=copy)
    git("commit", "--quiet", "--message", "first", cwd=copy)
    assert re.fullmatch(r"0\.1\.dev1\+g[0-9a-f]{7,}", build_sdist(copy, tmp_path / "without a tag"))
    git("tag", "nightly-2026", cwd=copy)
    assert re.fullmatch(r"0\.1\.dev1\+g[0-9a-f]{7,}", build_sdist(copy, tmp_path / "tag of no release"))
    git("tag", "v0.2.0", cwd=copy)
    assert build_sdist(copy, tmp_path / "tag") == "0.2.0"
    git("commit", "--quiet", "--allow-empty", "--message", "second", cwd=copy)
    assert re.fullmatch(r"0\.2\.1\.dev1\+g[0-9a-f]{7,}", build_sdist(copy, tmp_path / "after a tag"))


def test_a_folder_that_was_never_installed_says_that_its_version_is_not_known(copy):
    code = "import sys; sys.path.insert(0, '.'); import vswin; print(vswin.__version__)"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout == "0+unknown\n"


def test_version_and_help_work_from_another_folder(installed, elsewhere, built_version):
    vswin_command = str(installed / "vswin")
    assert run([vswin_command, "--version"], elsewhere) == f"vswin {built_version}\n"
    assert run([vswin_command, "--help"], elsewhere).split()[:2] == ["Usage:", "vswin"]
    for command in ("train", "evaluate"):
        text = run([vswin_command, command, "--help"], elsewhere)
        assert text.startswith(f"usage: vswin {command} [GROUP=OPTION ...]")
        assert "\n  dataset=charades|diving48|folder|hmdb51|jester|" in text
        assert "dataset: charades, diving48, folder, hmdb51, jester, " in run(
            [vswin_command, command, "dataset=ucf101", "--help"], elsewhere
        )
    where = run([str(installed / "python"), "-c", "import vswin; print(vswin.__file__)"], elsewhere).strip()
    assert Path(where).is_relative_to(installed.parent)


def test_training_and_evaluation_work_from_another_folder(installed, elsewhere):
    output = run([str(installed / "vswin"), "train", *TINY, "output_dir=run", "logger=wandb"], elsewhere)
    assert "best epoch 1: val top-1" in output
    assert (elsewhere / "run" / "checkpoints" / "best.safetensors").is_file()
    report = run([str(installed / "vswin"), "evaluate", "run=run"], elsewhere)
    assert "top-1" in report
    metrics = json.loads((elsewhere / "run" / "metrics.json").read_text())
    assert metrics["num_videos"] == 2
    rows = list(csv.DictReader((elsewhere / "run" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert sorted(path.name for path in elsewhere.iterdir()) == ["outputs", "run", "videos"]
    tables = {path.name for path in (elsewhere / "outputs").iterdir()}
    assert tables == {".results.lock", "results.json", "results.md"}
