import pickle
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from vswin.data.decode import VideoReader
from vswin.data.packed import tfds_builder
from vswin.data.packed.contents import read_description, read_videos
from vswin.data.packed.plan import make_plan
from vswin.data.packed.tfds_builder import PackedVideos, make_example
from vswin.data.packed.videos import load_packed
from vswin.data.records import VideoRecord


@pytest.fixture
def plan(small_videos: Path):
    train = [VideoRecord(str(small_videos / "dark" / f"{number}.avi"), 1) for number in (4, 0, 2)]
    return make_plan({"train": train, "val": []}, str(small_videos), 2)


def test_example_is_the_file_with_a_key_of_its_own(plan, small_videos: Path) -> None:
    examples = [make_example(entry, None) for entry in plan.entries["train"]]
    assert [example for _, example in examples] == [
        {
            "video": (small_videos / "dark" / f"{number}.avi").read_bytes(),
            "path": f"dark/{number}.avi".encode(),
            "label": 1,
            "number": place,
        }
        for place, number in enumerate((4, 0, 2))
    ]
    assert len({key for key, _ in examples}) == 3


def test_example_is_re_encoded_where_it_can_be(plan, small_videos: Path) -> None:
    (small_videos / "dark" / "0.avi").write_bytes(b"broken")
    _, shrunk = make_example(plan.entries["train"][0], 20)
    with VideoReader("shrunk.mp4", content=shrunk["video"]) as reader:
        assert reader.num_video_frames == 12
    assert make_example(plan.entries["train"][1], 20)[1]["video"] == b"broken"
    small = small_videos / "dark" / "2.avi"
    assert make_example(plan.entries["train"][2], 40)[1]["video"] == small.read_bytes()


def test_tfds_builds_it_too(plan, small_videos: Path, tmp_path: Path) -> None:
    builder = PackedVideos(
        class_names=["bright", "dark"],
        entries=plan.entries,
        short_side=None,
        by_beam=False,
        data_dir=str(tmp_path / "tfds"),
    )
    builder.download_and_prepare()
    found = {int(example["number"]): example["video"].numpy() for example in builder.as_dataset("train")}
    assert found == {entry.number: Path(entry.file).read_bytes() for entry in plan.entries["train"]}


def test_beam_gets_small_elements_and_a_function_its_workers_can_import(plan, monkeypatch) -> None:
    class Step:
        def __init__(self, *arguments: object) -> None:
            self.steps = [(type(self).__name__, *arguments)]

        def __or__(self, other: "Step") -> "Step":
            self.steps += other.steps
            return self

    beam = type("Beam", (), {name: type(name, (Step,), {}) for name in ("Create", "Reshuffle", "Map")})
    monkeypatch.setattr(tfds_builder, "import_beam", lambda: beam)
    builder = PackedVideos.__new__(PackedVideos)
    builder._short_side, builder._by_beam = None, True
    (_, elements), (_,), (_, function) = builder._generate_examples(plan.entries["train"]).steps
    assert elements == plan.entries["train"]
    sent = pickle.loads(pickle.dumps((function, elements)))
    assert sent[0](sent[1][0]) == make_example(plan.entries["train"][0], None)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_beam_packs_the_same_videos(video_set, pack, make_dataset, tmp_path: Path, file_format: str) -> None:
    pytest.importorskip("apache_beam", reason="Apache Beam is an optional, large dependency")
    by_cores = pack(video_set, tmp_path / "cores", file_format=file_format)
    by_beam = pack(video_set, tmp_path / "beam", file_format=file_format, beam=["--runner=DirectRunner"])
    rows = [
        [
            (video.split, video.path, video.label, video.num_bytes, video.sha256)
            for video in read_videos(root, read_description(root).videos_sha256)
        ]
        for root in (by_cores, by_beam)
    ]
    assert rows[0] == rows[1]
    _, train, val, store = load_packed(make_dataset(by_beam))
    for path, _ in train + val:
        assert store.read(path) == (video_set / Path(path).relative_to(by_beam)).read_bytes()
    assert not (tmp_path / "beam.partial").exists()
    assert tfds.builder_from_directory(by_beam).info.splits["train"].num_examples == len(train)
