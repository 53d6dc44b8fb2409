"""What a resumed run needs, compares and keeps, with real runs on real files in this process."""

import csv
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vswin.errors import InputError
from vswin.training.run import run_training
from vswin.weights.checkpoint import read_metadata

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=2",
    "logger.tensorboard=false",
)


@pytest.fixture
def train(compose_train, small_videos, tmp_path, monkeypatch, capsys):
    """Trains the tiny model on the small videos, in the folder `run`; returns its output."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, epochs: int = 20, folder: str = "run", root: Path = small_videos) -> str:
        capsys.readouterr()
        run_training(compose_train(*TINY, f"dataset.root={root}", f"output_dir={folder}", f"epochs={epochs}", *words))
        return capsys.readouterr().out

    return run


def states(folder: str = "run") -> list[str]:
    return sorted(path.stem for path in Path(folder).glob("checkpoints/last/ckpt-*.index"))


def at_first_state(act: Callable[[], object], folder: str = "run") -> None:
    """Calls `act` in a thread as soon as the run has saved a state."""

    def watch() -> None:
        while not states(folder):
            time.sleep(0.002)
        act()

    threading.Thread(target=watch, daemon=True).start()


@pytest.fixture
def stop(train):
    """Trains like `train`, and sends SIGTERM when the first state is saved."""

    def run(*words: str, **options) -> None:
        at_first_state(lambda: os.kill(os.getpid(), signal.SIGTERM), options.get("folder", "run"))
        with pytest.raises(SystemExit):
            train(*words, **options)

    return run


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((Path("run") / name).read_text().splitlines()))


def write_lists(root: Path, train: list[str], val: list[str]) -> list[str]:
    for name, videos in (("train", train), ("val", val)):
        Path(f"{name}.txt").write_text("".join(f"{root / video} {video.split('/')[0]}\n" for video in videos))
    return ["dataset.train_list=train.txt", "dataset.val_list=val.txt"]


TRAIN = [f"{label}/{i}.avi" for label in ("bright", "dark") for i in range(5)]
VAL = ["bright/5.avi", "dark/5.avi"]


@pytest.mark.slow
def test_other_videos_are_refused_by_name_and_cost_no_state(train, stop, small_videos):
    lists = write_lists(small_videos, TRAIN, VAL)
    stop(*lists, epochs=3)
    before = states()
    changes = [
        ((TRAIN[:-2], VAL), "2 of 10 training videos gone: dark/3 (dark), dark/4 (dark). Give it those that"),
        ((TRAIN, VAL[:1]), "1 of 2 validation videos gone"),
        (([*TRAIN[:-1], "dark/5.avi"], VAL), "gone: dark/4 (dark); 1 new training video: dark/5 (dark)"),
    ]
    for (training, validation), words in changes:
        write_lists(small_videos, training, validation)
        with pytest.raises(InputError) as caught:
            train(*lists, "resume=true", epochs=3)
        assert words in str(caught.value)
        assert "start a new run in another output_dir from its weights, with init_from=run" in str(caught.value)

    # A changed label, then a renamed class.
    write_lists(small_videos, TRAIN, VAL)
    text = Path("train.txt").read_text()
    Path("train.txt").write_text(text.replace("dark/4.avi dark", "dark/4.avi bright"))
    with pytest.raises(InputError, match=r"gone: dark/4 \(dark\); 1 new training video: dark/4 \(bright\)"):
        train(*lists, "resume=true", epochs=3)
    for name in ("train.txt", "val.txt"):
        Path(name).write_text(Path(name).read_text().replace(" dark\n", " night\n"))
    with pytest.raises(InputError, match="1 of 2 classes differ, the first: class 1 was 'dark', is 'night'"):
        train(*lists, "resume=true", epochs=3)
    assert states() == before

    # Runs of earlier versions record only their step.
    (Path("run") / "videos.json").unlink()
    write_lists(small_videos, TRAIN, VAL)
    out = train(*lists, "resume=true", epochs=3)
    assert "an earlier version began this run and left no run/videos.json: its videos cannot be compared" in out
    assert states() == ["ckpt-10", "ckpt-15"]
    assert (Path("run") / "videos.json").is_file()


@pytest.mark.slow
def test_the_same_videos_at_another_place_and_in_another_order_go_on_as_if_nothing_had_happened(
    train, stop, small_videos, tmp_path
):
    """Simulates another machine; `sort -R` reorders the list, which must not change the order of training."""
    lists = write_lists(small_videos, TRAIN, VAL)
    train(*lists, folder="whole", epochs=3)
    stop(*lists, epochs=3)
    moved = tmp_path / "elsewhere" / "clips"
    moved.parent.mkdir()
    small_videos.rename(moved)
    Path("shuffled.txt").write_text("".join(f"{video} {video.split('/')[0]}\n" for video in reversed(TRAIN)))
    write_lists(moved, TRAIN, VAL)
    out = train("dataset.train_list=shuffled.txt", lists[1], "resume=true", root=moved, epochs=3)
    assert "resumed after epoch" in out
    whole = [float(row["loss"]) for row in csv.DictReader(Path("whole/history.csv").read_text().splitlines())]
    assert [float(row["loss"]) for row in rows("history.csv")] == pytest.approx(whole, rel=1e-6)


@pytest.mark.slow
def test_weights_to_start_from_are_needed_at_the_start_alone_and_kept_frames_to_the_end(train, stop):
    train(folder="first", epochs=1)
    Path("first/checkpoints/best.safetensors").rename("start.safetensors")
    stop("init_from=start.safetensors", "dataset.cache=ram", "save_steps=1", epochs=2)
    Path("start.safetensors").unlink()
    with pytest.raises(InputError, match=r"init_from=start\.safetensors: there is no such file"):
        train("init_from=start.safetensors", folder="third")
    with pytest.raises(InputError, match=r"configured otherwise: dataset\.cache: ram there, none here"):
        train("resume=true", epochs=2)
    # Frames cached on a disk are the same; the missing file of init_from is not needed.
    out = train("dataset.cache=disk", "dataset.cache_dir=frames", "resume=true", epochs=2)
    assert "weights:        those of the state that the run goes on from; init_from is not read again" in out
    assert read_metadata("run/checkpoints/best.safetensors")["init_from"] == "start.safetensors"


@pytest.mark.slow
def test_bad_videos_are_counted_over_all_sessions(train, small_videos):
    broken = [str(small_videos / "dark" / f"{i}_broken.avi") for i in range(2)]
    for path in broken:
        Path(path).write_bytes(b"not a video")
    with pytest.raises(InputError) as caught:
        train(epochs=3)
    assert "2 of 14 videos could not be decoded so far" in str(caught.value)
    assert "repair or replace them under the same names, or raise the share, then go on" in str(caught.value)
    first = {row["path"]: int(row["times"]) for row in rows("bad_videos.csv")}
    assert sorted(first) == broken
    # As the error advises: replace one video, and raise the allowed share for the other.
    shutil.copy(small_videos / "dark" / "0.avi", broken[0])
    train("dataset.max_bad_share=0.1", "resume=true", epochs=3)
    second = {row["path"]: int(row["times"]) for row in rows("bad_videos.csv")}
    assert second == {broken[0]: first[broken[0]], broken[1]: first[broken[1]] + 2}


@pytest.mark.slow
def test_a_folder_that_is_moved_while_the_run_goes_on_is_not_made_anew(train):
    at_first_state(lambda: Path("run").rename("moved"))
    with pytest.raises(InputError) as caught:
        train("logger.csv=false")
    assert "the folder of the run, run, was moved or removed while it went on" in str(caught.value)
    assert "name its new place with output_dir=" in str(caught.value)
    assert not Path("run").exists()
    assert "resumed after epoch" in train("resume=true", "logger.csv=false", folder="moved")


@pytest.mark.slow
def test_states_that_are_removed_while_the_run_goes_on_are_said_or_written_anew(train):
    at_first_state(lambda: shutil.rmtree("run/checkpoints", ignore_errors=True))
    said = ""
    try:
        train()
    except InputError as error:
        # A state was being written at that moment.
        said = str(error)
    if said:
        assert "run/checkpoints/last was removed while the run went on, and its states with it" in said
        assert Path("run/checkpoints/best.safetensors").exists() == ("with init_from=run" in said)
    else:
        assert states() == ["ckpt-100", "ckpt-95"]
        assert Path("run/checkpoints/best.safetensors").exists()
