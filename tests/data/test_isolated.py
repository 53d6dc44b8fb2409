"""Decoding in separate processes: the same frames, and decoders that really crash and hang."""

import gc
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import make_group
from vswin.data import isolated as isolated_module
from vswin.data.bad_videos import BadVideos
from vswin.data.decode import VIDEO_FILES
from vswin.data.frames import FrameLoader, RamCache
from vswin.data.isolated import IsolatedVideos
from vswin.data.order import Order
from vswin.data.pipeline import make_train_dataset
from vswin.data.samples import Sample
from vswin.data.transforms import resize_short_side
from vswin.errors import DecodeError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs Linux or macOS")

CLIPS = Path(__file__).parent.parent / "clips"
# The file name says what happens. OpenCV itself crashes at a name that is not UTF-8, which `VideoReader` refuses.
FAULTY_STORE = """
import os, signal, sys, threading, time
import numpy as np
from vswin.errors import DecodeError
from vswin.data.decoders import OpenCVDecoder
from vswin.data.decode import VideoFiles
from vswin.data.samples import WHOLE

class FaultyFiles(VideoFiles):
    def open(self, path, decoder="auto", timeout_sec=None, part=WHOLE):
        name = os.path.basename(path)
        if name.startswith("crash"):
            OpenCVDecoder(path)
        if name.startswith("hang"):
            time.sleep(3600)
        if name.startswith("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if name.startswith("exit"):
            os._exit(3)
        if name.startswith("error"):
            raise RuntimeError("no luck")
        if name.startswith("memory"):
            bytearray(40 << 30)
        if name.startswith("modules"):
            raise DecodeError(path, "modules", " ".join(sys.modules))
        if name.startswith("pid"):
            raise DecodeError(path, "pid", str(os.getpid()))
        return super().open(path, decoder, timeout_sec, part)

def die_while_sending(reader):
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return np.zeros(256 << 20, np.uint8)
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> IsolatedVideos:
    """Isolates a store whose decoders crash and hang."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty_store_of_the_tests.py").write_text(FAULTY_STORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import faulty_store_of_the_tests

        yield IsolatedVideos(faulty_store_of_the_tests.FaultyFiles())


@pytest.fixture
def crash(tmp_path, write_video) -> str:
    """Writes a good video whose name makes OpenCV's decoder crash with a segmentation fault."""
    path = os.path.join(os.fsencode(tmp_path), b"crash\xe9.avi")
    Path(os.fsdecode(path)).write_bytes(Path(write_video("crash.avi", 5)).read_bytes())
    return os.fsdecode(path)


def fault_of(store: IsolatedVideos, name: str, timeout_sec: float | None = 20) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        store.open(name, timeout_sec=timeout_sec)
    return caught.value


def frames_of(store, path: str) -> list[int]:
    with store.open(path) as reader:
        return reader.read(np.array([3, 0]), partial(resize_short_side, size=16)).mean(axis=(1, 2, 3)).tolist()


def child_pids() -> set[int]:
    return {child.pid for child in multiprocessing.active_children()}


def test_frames_facts_and_errors_are_those_of_the_same_process(encode, write_video, bad_files) -> None:
    paths = [str(CLIPS / name) for name in ("demo.mp4", "test.avi", "flipping_a_pancake.mkv")]
    paths += [encode("av1.webm", "-c:v", "libaom-av1", "-cpu-used", "8"), write_video("quiet.avi", 9, 46, 34)]
    loaders = [FrameLoader(timeout_sec=60), FrameLoader(timeout_sec=60, store=IsolatedVideos(VIDEO_FILES))]
    for path in paths:
        loaded = [loader.load(path, 40, lambda n: np.array([n - 1, 0, n // 2, 0])) for loader in loaders]
        assert np.array_equal(*loaded)
    for path in bad_files.values():
        reasons = []
        for loader in loaders:
            with pytest.raises(DecodeError) as caught:
                loader.load(path, 40, lambda n: np.arange(2))
            reasons.append((caught.value.path, caught.value.reason))
        assert reasons[0] == reasons[1]
    assert loaders[0].describe_decoders() == loaders[1].describe_decoders()
    assert loaders[0].count_short_sides() == loaders[1].count_short_sides()
    assert loaders[1].count_videos() == {"opencv": 4, "pyav": 1}


def test_a_real_segmentation_fault_costs_the_video_alone(faulty, write_video, crash) -> None:
    good = write_video("good.avi", 5)
    assert frames_of(faulty, good) == [46, 10]
    before = child_pids()
    error = fault_of(faulty, crash)
    assert (error.path, error.cause, error.detail) == (crash, "decoder crashed", "SIGSEGV")
    assert frames_of(faulty, good) == [46, 10]
    # Processes of other tests may end at any time.
    assert len(child_pids() - before) == 1
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process().children())


@pytest.mark.parametrize(
    ("name", "detail"),
    [("exit.avi", "exit code 3"), ("error.avi", "RuntimeError: no luck"), ("memory.avi", "MemoryError: ")],
)
def test_other_ways_to_fail_are_named(faulty, write_video, name: str, detail: str) -> None:
    error = fault_of(faulty, name)
    assert (error.cause, error.detail) == ("decoder crashed", detail)
    assert frames_of(faulty, write_video("good.avi", 5)) == [46, 10]


@pytest.mark.parametrize(("name", "limit_sec"), [("hang.avi", 0.2), ("stop.avi", 0.2), ("hang.avi", None)])
def test_a_decoder_that_hangs_is_ended(faulty, write_video, monkeypatch, name: str, limit_sec: float | None) -> None:
    monkeypatch.setattr(isolated_module, "_GRACE_SEC", 0.1)
    monkeypatch.setattr(isolated_module, "LONGEST_SILENCE_SEC", 0.2)
    start = time.monotonic()
    error = fault_of(faulty, name, limit_sec)
    assert (error.cause, error.detail) == ("too slow", "not read within 0.2 s, its decoder was ended")
    assert time.monotonic() - start < 5
    assert frames_of(faulty, write_video("good.avi", 5)) == [46, 10]


def test_a_limit_noticed_between_two_frames_leaves_the_process_alive(faulty, write_video) -> None:
    pid = fault_of(faulty, "pid").detail
    error = fault_of(faulty, write_video("good.avi", 5), 1e-9)
    assert error.reason == "too slow (not read within 1e-09 s)"
    assert fault_of(faulty, "pid").detail == pid


def test_processes_import_no_tensorflow(faulty) -> None:
    names = fault_of(faulty, "modules").detail.split()
    assert "cv2" in names
    assert "av" in names
    assert {
        name for name in names if name.split(".")[0] in ("tensorflow", "tf_keras", "keras", "hydra", "pytest")
    } == set()


def test_signals_of_the_run_do_not_reach_the_processes(faulty, write_video) -> None:
    pid = int(fault_of(faulty, "pid").detail)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(pid, number)
    assert frames_of(faulty, write_video("good.avi", 5)) == [46, 10]
    assert int(fault_of(faulty, "pid").detail) == pid


def test_a_process_killed_between_two_videos_is_replaced(faulty, write_video) -> None:
    pid = int(fault_of(faulty, "pid").detail)
    os.kill(pid, signal.SIGKILL)
    while pid in child_pids():
        time.sleep(0.01)
    assert frames_of(faulty, write_video("good.avi", 5)) == [46, 10]


def test_a_process_killed_while_it_sends_costs_its_clip_alone(faulty, write_video) -> None:
    from faulty_store_of_the_tests import die_while_sending

    with faulty.open(write_video("good.avi", 5)) as reader, ThreadPoolExecutor(1) as pool:
        other = pool.submit(frames_of, faulty, write_video("other.avi", 6))
        with pytest.raises(DecodeError, match=r"decoder crashed \(SIGKILL, as where memory runs out\)"):
            reader.run(die_while_sending)
        with pytest.raises(DecodeError, match="earlier"):
            reader.read_times()
        assert other.result(20) == [46, 10]


def test_threads_share_as_many_processes_as_they_are(faulty, write_video, crash) -> None:
    paths = [write_video(f"shared{number}.avi", 4 + number) for number in range(4)]
    others = child_pids()

    def load(number: int) -> object:
        path = crash if number % 12 == 0 else paths[number % 4]
        try:
            return frames_of(faulty, path)
        except DecodeError as error:
            return error.reason

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(load, range(48)))
    expected = ["decoder crashed (SIGSEGV)" if number % 12 == 0 else [46, 10] for number in range(48)]
    assert results == expected
    assert len(child_pids() - others) <= 4


def test_processes_end_when_nobody_needs_them_any_more(write_video) -> None:
    before = child_pids()
    store = IsolatedVideos(VIDEO_FILES)
    reader = store.open(write_video("good.avi", 5))
    (pid,) = child_pids() - before
    del store
    gc.collect()
    with reader:
        assert len(reader.read(np.array([1]), partial(resize_short_side, size=16))) == 1
    del reader
    gc.collect()
    assert not psutil.pid_exists(pid)


def test_an_error_of_the_caller_leaves_the_process_usable(faulty, write_video) -> None:
    pid = fault_of(faulty, "pid").detail
    with pytest.raises(ZeroDivisionError):
        FrameLoader(store=faulty).load(write_video("good.avi", 5), 16, lambda n: 1 // 0)
    assert fault_of(faulty, "pid").detail == pid


def test_decoded_videos_are_cached_in_this_process(write_video) -> None:
    store = IsolatedVideos(VIDEO_FILES)
    path, other = write_video("good.avi", 5), write_video("other.avi", 5)
    loader = FrameLoader(cache=RamCache(), store=store)
    first = loader.load(path, 16, np.arange)
    store.close()
    assert np.array_equal(loader.load(path, 16, np.arange), first)
    with pytest.raises(DecodeError, match="interrupted"):
        loader.load(other, 16, np.arange)


def test_in_training_a_crash_is_a_clip_of_no_weight(faulty, write_video, crash, make_augment) -> None:
    records = [Sample(write_video("good.avi", 8), (1,)), Sample(crash, (0,)), Sample("hang.avi", (2,))]
    clip = make_group("clip", num_frames=2, frame_stride=1, resize=16, crop=16, num_clips=1, num_crops=1)
    bad = BadVideos()
    order = Order(seed=0, batch_size=3, epochs=2)
    loader = FrameLoader(timeout_sec=0.5, store=faulty)
    for batch in make_train_dataset(records, clip, make_augment(), True, order, bad, loader).as_numpy_iterator():
        assert {int(i): float(w) for i, w in zip(batch["indices"], batch["weights"], strict=True)} == {0: 1, 1: 0, 2: 0}
    assert [(Path(path).name, cause, times) for path, cause, times in bad.rows()] == [
        (Path(crash).name, "decoder crashed (SIGSEGV)", 2),
        ("hang.avi", "too slow (not read within 0.5 s, its decoder was ended)", 2),
    ]
