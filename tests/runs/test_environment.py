"""Tests of vswin.runs.environment: what is recorded, and that none of it is required."""

import json
import subprocess

import pytest

from vswin.runs.environment import describe_checkout, describe_session, plain_command, read_sessions, record_session


def git(folder, *words):
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    return subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True).stdout


def test_sessions_add_up(tmp_path):
    record_session(tmp_path, ["python", "train.py", "output_dir=my run"])
    record_session(tmp_path)
    first, second = read_sessions(tmp_path)
    assert first["command"] == "python train.py 'output_dir=my run'"
    assert second["command"] is None
    assert first["date"] <= second["date"]
    for key in ("vswin", "python", "tensorflow", "tf_keras", "numpy", "opencv"):
        assert first[key][0].isdigit(), key
    assert first["threads"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["environment.json"]


@pytest.mark.parametrize("text", ["", "[]", "3", '{"sessions": 3}', '{"sessions": ["x", 4]}', "\x00", "[" * 100_000])
def test_a_damaged_file_is_begun_anew(tmp_path, text):
    (tmp_path / "environment.json").write_text(text)
    assert read_sessions(tmp_path) == []
    record_session(tmp_path, ["vswin"])
    assert [session["command"] for session in read_sessions(tmp_path)] == ["vswin"]


def test_a_checkout_has_a_revision_and_may_be_changed(tmp_path, monkeypatch):
    assert describe_checkout(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert describe_checkout(tmp_path) is None  # there is no commit yet
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    revision = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "outputs").write_text("not a part of the code")
    assert describe_checkout(tmp_path) == {"revision": revision, "is_changed": False}
    (tmp_path / "code.py").write_text("2")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert describe_checkout(tmp_path) == {"revision": revision, "is_changed": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_checkout(tmp_path) is None


def test_a_session_is_json():
    assert json.loads(json.dumps(describe_session(["a"])))["command"] == "a"


def test_an_installed_command_is_named_as_it_was_typed(tmp_path, monkeypatch):
    program = tmp_path / "vswin"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plain_command(["/usr/bin/python", str(program), "train"]) == ["vswin", "train"]
    assert plain_command(["python", "train.py"]) == ["python", "train.py"]
    assert plain_command([]) == []
