"""Tests of `vswin.tools.selftest`: a sound installation passes, and it finds each fault it is made for."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vswin.cli import SELFTEST_OVERRIDES
from vswin.data import decode
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.motion import prepare_motion
from vswin.data.samples import Sample
from vswin.errors import InputError
from vswin.runtime import make_strategy
from vswin.tools import selftest

VSWIN = str(Path(sys.executable).with_name("vswin"))


def test_equal_losses_pass_and_others_name_the_step_and_what_to_look_at(monkeypatch, compose_train):
    config = compose_train(*SELFTEST_OVERRIDES)
    expected = json.loads(Path(selftest.__file__).with_name("selftest.json").read_text())["losses"]
    assert len(expected) == selftest.NUM_STEPS
    monkeypatch.setattr(selftest, "_train", lambda config, strategy: list(expected))
    selftest.run_selftest(config)
    for step, value, words in ((0, 9.0, "the decoder"), (30, 9.0, "the optimizer"), (0, float("nan"), "the decoder")):
        wrong = [*expected[:step], value, *expected[step + 1 :]]
        monkeypatch.setattr(selftest, "_train", lambda config, strategy, wrong=wrong: wrong)
        with pytest.raises(InputError, match=rf"step {step} is .* 1 of the 50 steps differ: look at .*{words}"):
            selftest.run_selftest(config)


def leave_blue_first(frame, code, dst):
    dst[...] = frame


def test_red_taken_for_blue_is_found_before_the_training(monkeypatch, compose_train):
    monkeypatch.setattr(decode.cv2, "cvtColor", leave_blue_first)
    with pytest.raises(InputError, match=r"opencv gives the colours .* written were \[\[200, 60"):
        selftest.run_selftest(compose_train(*SELFTEST_OVERRIDES))


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_that_are_off_by_one_are_found_before_the_training(shift):
    names = ("a", "b", "c")
    records = [Sample(f"videos/train/{name}/1.avi", (label,)) for label, name in enumerate(names)]
    selftest._check_labels(Catalog(names, records, records))
    wrong = [record._replace(labels=(record.label + shift,)) for record in records]
    for catalog in (Catalog(names, wrong, records), Catalog(names, records, wrong)):
        with pytest.raises(InputError, match=rf"a/1\.avi has the label {shift}, which is not a: reinstall"):
            selftest._check_labels(catalog)


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> str:
    """Writes once the videos that each self-test would write again."""
    folder = tmp_path_factory.mktemp("motion") / "videos"
    prepare_motion(folder)
    return str(folder)


@pytest.fixture
def short(monkeypatch, motion) -> None:
    """Takes the first steps only, on videos that exist."""
    monkeypatch.setattr(selftest, "NUM_STEPS", 6)
    monkeypatch.setattr(
        selftest, "load_catalog", lambda dataset: load_catalog(dataclasses.replace(dataset, root=motion))
    )


def test_only_the_runtime_may_be_set():
    done = subprocess.run([VSWIN, "selftest", "epochs=3"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("only runtime.* may be set")


@pytest.mark.slow
def test_this_installation_passes():
    done = subprocess.run([VSWIN, "selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "This installation trains as it should" in done.stdout


@pytest.mark.slow
def test_a_fault_in_the_recipe_is_found(compose_train, short):
    with pytest.raises(InputError, match="expected is"):
        selftest.run_selftest(compose_train(*SELFTEST_OVERRIDES, "optimizer.warmup_ratio=1.0"))


@pytest.mark.slow
def test_two_devices_and_half_precision_pass(compose_train, short):
    for overrides in (("runtime.strategy=mirrored", "runtime.micro_batches=2"), ("runtime.precision=bfloat16",)):
        selftest.run_selftest(compose_train(*SELFTEST_OVERRIDES, *overrides))
    assert make_strategy("mirrored").num_replicas_in_sync == 2
