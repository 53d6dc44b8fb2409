"""The container files, as far as they can be checked without an engine."""

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "Dockerfile", ROOT / ".devcontainer" / "Dockerfile"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Splits a Dockerfile into instructions and their arguments, and joins continued lines."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines()]


def copied() -> list[str]:
    """Lists what the image with the command copies from the checkout."""
    return [
        source for word, rest in instructions(ROOT / "Dockerfile") if word == "COPY" for source in rest.split()[:-1]
    ]


def is_sent(path: str) -> bool:
    """Applies `.dockerignore` to a path: its last pattern that matches the path or a parent folder decides."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    sent = True
    for pattern in patterns:
        same_depth = [found for found in above if found.count("/") == pattern.count("/") or "**" in pattern]
        if any(fnmatch.fnmatchcase(found, pattern.removeprefix("!")) for found in same_depth):
            sent = pattern.startswith("!")
    return sent


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_are_named_without_a_registry_and_do_not_end_as_root(path):
    words = instructions(path)
    assert words[0][0] == "FROM"
    assert [rest for word, rest in words if word == "FROM"] == ["python:3.11-slim"]
    (user,) = [rest for word, rest in words if word == "USER"]
    (made,) = [rest for word, rest in words if word == "RUN" and "useradd" in rest]
    assert user in ("vswin", "1000")
    assert re.search(r"useradd [^&]*--uid 1000 [^&]*\bvswin\b", made)
    assert "Not run yet" in path.read_text()


def test_what_is_copied_exists_is_sent_and_is_all_that_a_build_needs():
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert [path for path in copied() if not is_sent(path)] == []
    project = (ROOT / "pyproject.toml").read_text()
    included = project.partition("wheel.force-include]")[2].partition("[tool.ruff]")[0]
    assert set(re.findall(r'^"([^"]+)"', included, re.MULTILINE)) <= set(copied())
    assert {"pyproject.toml", "README.md", "LICENSE", "vswin", "constraints.txt"} <= set(copied())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("vswin/models/windows.py", True),
        ("data/ucf101/classes.txt", True),
        ("data/motion/videos/val/zoom_in/00001.avi", False),
        ("data/motion/videos.partial-1/a.avi", False),
        ("outputs/run/metrics.json", False),
        (".venv/bin/python", False),
        (".git/config", False),
        ("vswin/models/__pycache__/windows.pyc", False),
    ],
)
def test_videos_runs_and_environments_are_not_sent(path, expected):
    assert is_sent(path) is expected


def test_the_extras_that_may_be_built_exist():
    text = (ROOT / "Dockerfile").read_text()
    extras = re.findall(r"--build-arg EXTRA=(\w+)", text)
    assert extras == ["gpu"]
    assert "\ngpu = [" in (ROOT / "pyproject.toml").read_text()


def test_the_development_container_makes_what_contributing_says():
    folder = ROOT / ".devcontainer"
    comment, *lines = (folder / "devcontainer.json").read_text().splitlines()
    assert comment.startswith("// Not run yet")
    container = json.loads("\n".join(lines))
    assert (folder / container["build"]["dockerfile"]).is_file()
    assert ("USER", container["remoteUser"]) in instructions(folder / "Dockerfile")
    program, target = shlex.split(container["postCreateCommand"])
    assert (program, f"\n{target}:" in (ROOT / "Makefile").read_text()) == ("make", True)
