"""Tests of `benchmarks/peers`: the protocol, with tiny stand-ins; real peers are not installed."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vswin.errors import InputError

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
FAKE = """
import os
import sys
sys.path.insert(0, {peers!r})
from protocol import Case, serve

def build(case):
    print("a library prints what it likes")
    if case.variant == "asked":
        raise NotImplementedError(" ".join(name for name in os.environ if name.startswith("TF_")))
    if case.variant == "unable":
        raise NotImplementedError("not here")
    if case.variant == "crashing":
        sys.exit("fatal: gone")
    count = 0

    def run():
        nonlocal count
        count += 1
        print("and again")
        if case.variant == "failing" and count > 1:
            raise ValueError("worn out")
        return case.num_frames + count / 4

    return run

serve(build, ["numpy"])
"""


@pytest.fixture
def peers(monkeypatch):
    """Makes the modules of benchmarks/peers importable."""
    monkeypatch.syspath_prepend(str(PEERS))


@pytest.fixture
def contender(peers, tmp_path):
    """Makes a contender played by a fake peer: name, command and case."""
    from protocol import Case

    script = tmp_path / "fake_peer.py"
    script.write_text(FAKE.format(peers=str(PEERS)))

    def make(name, **case):
        return name, [sys.executable, str(script)], Case(**{"task": "step", **case})

    return make


def test_peers_take_turns_and_those_that_cannot_are_left_out_unless_first(contender):
    from compare import compare

    contenders = [contender("a", num_frames=1), contender("b", num_frames=3)]
    unable, crashing = contender("unable", variant="unable"), contender("crashing", variant="crashing")
    result = compare([*contenders, unable, crashing], rounds=3, clips=2)
    first, second = result.rows
    # One run checks whether it works, one warms up.
    assert first.seconds == [1.75, 2.0, 2.25]
    assert second.seconds == [3.75, 4.0, 4.25]
    assert first.figures["clips_per_second"] == 1.0
    assert 0 <= first.figures["step_gb"] < first.figures["process_gb"] < 1
    assert result.notes["a"][0].startswith("numpy ")
    assert result.notes["unable cannot do this"] == ["NotImplementedError: not here"]
    assert result.notes["crashing cannot do this"] == ["its process ended with code 1: fatal: gone"]
    with pytest.raises(InputError, match="unable: NotImplementedError: not here"):
        compare([unable, contenders[0]], rounds=1, clips=1)


def test_what_vswin_sets_on_import_reaches_no_peer(contender, monkeypatch):
    from peer_process import PeerError, PeerProcess

    program = "import os; given = set(os.environ); import vswin; print(*(set(os.environ) - given))"
    given = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    printed = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True)
    ours = set(printed.stdout.split())
    assert {"TF_ENABLE_ONEDNN_OPTS", "TF_USE_LEGACY_KERAS"} <= ours
    for name in ours:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TF_OF_THE_USER", "1")
    _, command, case = contender("a", variant="asked")
    with pytest.raises(PeerError, match="NotImplementedError") as caught:
        PeerProcess(command, case)
    seen = set(str(caught.value).split())
    assert "TF_OF_THE_USER" in seen
    assert not ours & seen


def test_a_peer_that_fails_later_says_so(contender):
    from peer_process import PeerError, PeerProcess

    _, command, case = contender("a", variant="failing")
    with PeerProcess(command, case) as peer:
        assert peer.run() == 32.25
        with pytest.raises(PeerError, match="ValueError: worn out"):
            peer.run()


def test_vswin_is_a_peer_and_contenders_that_are_not_there_are_named(peers, monkeypatch, tmp_path):
    import compare

    monkeypatch.setattr(compare, "find_python", lambda peer: tmp_path / peer)
    (tmp_path / "keras_cv").write_text("")
    sizes = {"frames": 4, "size": 32, "batch": 1}
    asked = {"precision": ["float32", "bfloat16"], "variants": None, "remat": True, "jit": True}
    arguments = argparse.Namespace(task="step", peers=["keras_cv"], **asked, **sizes)
    contenders = list(compare.list_contenders(arguments))
    variants = ("vswin", "vswin remat", "vswin jit", "keras_cv graph", "keras_cv onednn", "keras_cv xla")
    precisions = ("float32", "bfloat16")
    assert [name for name, _, _ in contenders] == [f"{name} {kind}" for kind in precisions for name in variants]
    assert all(Path(command[1]).is_file() for _, command, _ in contenders)
    for peers_named, message in (
        (["decord"], "step is measured with keras_cv, torchvision"),
        (None, "install.py torch"),
    ):
        arguments.peers = peers_named
        with pytest.raises(InputError, match=message):
            list(compare.list_contenders(arguments))


@pytest.mark.parametrize("path", sorted((PEERS / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_every_peer_has_pinned_requirements_and_a_script(path):
    assert (PEERS / f"{path.stem}_peer.py").is_file()
    assert all("==" in line for line in path.read_text().splitlines())


def test_results_that_are_stored_can_be_read():
    paths = sorted((PEERS.parent / "results").rglob("*.json"))
    assert paths
    for path in paths:
        stored = json.loads(path.read_text())
        # growth.py has a table of series.
        assert stored["table" if path.stem.startswith("growth") else "rows"], path
        assert {"cpu", "threads", "tensorflow"} <= set(stored["machine"]), path
