"""Every reader of files by others reads sound inputs, refuses hostile ones, and reads or refuses damaged ones."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import Guard, read_files
from fuzz_edits import KINDS, Edit, apply_edits
from fuzz_targets import ALLOWED, TARGETS, Target, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(case for case in CORPUS.glob("*/*") if case.is_dir())
# Odd but valid: a class may be called 999..., other lines may be sound, a name may contain bytes that are no text.
HARMLESS = {"results/half_a_character", "video/index_points_before_the_start"}
# Slow readers, and how many inputs they read in a second; the others take hundredths of a second per input.
NUM_EXAMPLES = {"command_line": 12, "run_config": 20, "tfds": 12, "saved_model": 15, "tar": 15}

edits = st.lists(
    st.builds(Edit, st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Watches the readers, which may only write into temporary folders."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fuzz")
        patch.setenv("VSWIN_FUZZ_FOLDER", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield Guard(folder)


def read(target: Target, files: dict[str, bytes], guard: Guard) -> bool:
    """Writes an input and reads it; returns whether it was accepted."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(target.finish(files), Path(folder, "input"))
        try:
            with guard:
                target.read(Path(folder, "input"))
        except ALLOWED:
            return False
    return True


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_sound_inputs_are_read(target, guard):
    accepted = [read(target, files, guard) for files in target.seeds()]
    # Two unsound seeds cover further parts of the readers: no networks, or too many storages.
    assert accepted.count(False) <= (target.name in ("safetensors", "torch_pickle"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_hostile_inputs_are_refused(case, guard):
    is_read = read(TARGETS[case.parent.name], read_files(case), guard)
    assert is_read == (f"{case.parent.name}/{case.name}" in HARMLESS)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_damaged_inputs_are_read_or_refused(target, guard):
    pool = target.seeds()

    @settings(max_examples=NUM_EXAMPLES.get(target.name, 30), derandomize=True, deadline=None, database=None)
    @given(st.integers(0, len(pool) - 1), st.integers(0, 7), edits)
    def check(chosen: int, part: int, damages: list[Edit]) -> None:
        files = dict(pool[chosen])
        name = sorted(files)[part % len(files)]
        files[name] = apply_edits(files[name], damages)
        read(target, files, guard)

    check()


def test_the_guard_hears_what_readers_must_not_do(guard, tmp_path):
    for forbidden in (
        lambda: (tmp_path / "outside").write_text("x"),
        lambda: os.system("true"),
        lambda: (tmp_path / "folder").mkdir(),
    ):
        with pytest.raises(BaseException, match=r"open|os\.system|os\.mkdir"), guard:
            forbidden()
    with guard:
        Path(os.environ["VSWIN_FUZZ_FOLDER"], "inside").write_text("x")
