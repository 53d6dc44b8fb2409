"""Files by name and by content."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., None]:
    """Makes empty files below the test's folder, with their folders."""

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a text file below the test's folder, byte for byte."""

    def written(name: str, text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))
        return path

    return written


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Collects what is logged; a run that was started earlier keeps its messages from pytest."""
    monkeypatch.setattr(logging.getLogger("vswin"), "propagate", True)
    return caplog
