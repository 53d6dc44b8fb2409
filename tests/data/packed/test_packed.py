import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_group
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import load_catalog
from vswin.data.folder import load_folder
from vswin.data.frames import DiskCache, FrameLoader
from vswin.data.isolated import IsolatedVideos
from vswin.data.packed import PackedVideo, RecordVideos, load_packed, read_rows, write_rows
from vswin.data.pipeline import Order, make_eval_dataset, make_train_dataset
from vswin.data.samples import Sample, split_train_val
from vswin.errors import DecodeError, InputError

BAD = ("empty", "text", "playlist", "audio", "truncated mp4", "truncated avi", "truncated mkv", "one frame mp4")
TRAIN_CLIP = make_group("clip", num_frames=4, frame_stride=2, resize=40, crop=32)
EVAL_CLIP = make_group("clip", num_frames=4, frame_stride=2, resize=40, crop=32, num_clips=2, num_crops=3)


def records_of_files(root: Path) -> tuple[list[Sample], list[Sample]]:
    return split_train_val(load_folder(root)[1], 0.3, str(root))


def is_bad(path: str) -> bool:
    return Path(path).stem.replace("_", " ") in BAD


def renamed(records: list[Sample], root: Path, packed: Path) -> list[Sample]:
    return [video._replace(path=os.path.join(packed, os.path.relpath(video.path, root))) for video in records]


def read_all(store: RecordVideos, records: list[Sample]) -> list[bytes]:
    return [store.read(path) for path, *_ in records]


@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
def test_training_batches_equal_those_of_the_files(video_set, packed, make_dataset, make_augment, decoder: str) -> None:
    files, (_, train, _, store) = records_of_files(video_set)[0], load_packed(make_dataset(packed))
    assert train == renamed(files, video_set, packed)
    order = Order(seed=3, batch_size=4, epochs=1)
    bad = [BadVideos(), BadVideos()]
    loaders = [FrameLoader(decoder), FrameLoader(decoder, store=store)]
    augment = make_augment(crop_area=[0.2, 1.0])
    of_files, of_packed = (
        list(make_train_dataset(records, TRAIN_CLIP, augment, True, order, bad[i], loaders[i]).as_numpy_iterator())
        for i, records in enumerate((files, train))
    )
    assert len(of_files) == len(of_packed) == -(-len(files) // 4)
    for one, other in zip(of_files, of_packed, strict=True):
        for key in one:
            assert np.array_equal(one[key], other[key]), key
    assert len({path for path, *_ in bad[0].rows()}) == sum(is_bad(path) for path, *_ in files) > 5
    assert loaders[0].count_videos() == loaders[1].count_videos()
    assert [(os.path.relpath(path, video_set), *rest) for path, *rest in bad[0].rows()] == [
        (os.path.relpath(path, packed), *rest) for path, *rest in bad[1].rows()
    ]


def test_evaluation_batches_and_causes_equal_those_of_the_files(video_set, packed, make_dataset) -> None:
    train_files, val_files = records_of_files(video_set)
    files = train_files + val_files
    _, train, val, store = load_packed(make_dataset(packed))
    bad = [BadVideos(), BadVideos()]
    loaders = [FrameLoader(), FrameLoader(store=store)]
    of_files, of_packed = (
        list(make_eval_dataset(records, EVAL_CLIP, 3, bad[i], loader=loaders[i]).as_numpy_iterator())
        for i, records in enumerate((files, train + val))
    )
    for one, other in zip(of_files, of_packed, strict=True):
        for key in one:
            assert np.array_equal(one[key], other[key]), key
    assert sum(batch["weights"].sum() for batch in of_files) == len(files) == 18
    assert [(os.path.relpath(path, video_set), *rest) for path, *rest in bad[0].rows()] == [
        (os.path.relpath(path, packed), *rest) for path, *rest in bad[1].rows()
    ]
    assert len(bad[0]) == 8
    assert loaders[1].count_videos() == {"opencv": 8, "pyav": 2}


def test_caches_keep_packed_videos_apart_from_files(video_set, packed, make_dataset, tmp_path: Path) -> None:
    store = load_packed(make_dataset(packed))[3]
    name = os.path.join(packed, "second", "xvid.avi")
    of_records = FrameLoader(cache=DiskCache(tmp_path), store=store)
    of_files = FrameLoader(cache=DiskCache(tmp_path))
    frames = [of_records.load(name, 40, lambda num_frames: np.array([5, 1])) for _ in range(2)]
    frames.append(of_files.load(video_set / "second" / "xvid.avi", 40, lambda num_frames: np.array([5, 1])))
    assert np.array_equal(frames[:2], frames[1:])
    assert len(list(tmp_path.iterdir())) == 2


def test_isolated_decoding_gives_the_same_frames_and_causes(packed, make_dataset) -> None:
    _, train, val, store = load_packed(make_dataset(packed))
    loaders = [FrameLoader(store=store), FrameLoader(store=IsolatedVideos(store))]
    for path, *_ in train + val:
        results = []
        for loader in loaders:
            try:
                results.append(loader.load(path, 40, lambda num_frames: np.array([1, 0])))
            except DecodeError as error:
                results.append(str(error))
        assert np.array_equal(*results), path
    assert loaders[0].count_videos() == loaders[1].count_videos() == {"opencv": 8, "pyav": 2}


def test_packed_data_set_may_be_moved(packed, make_dataset, tmp_path: Path) -> None:
    moved = shutil.copytree(packed, tmp_path / "moved")
    _, train, _, store = load_packed(make_dataset(moved))
    assert all(Path(path).is_relative_to(moved) for path, *_ in train)
    one, other = load_packed(make_dataset(packed))[3], store
    name = "first/demo.mp4"
    assert one.identify(os.path.join(packed, name)) == other.identify(os.path.join(moved, name)) is not None


def test_unknown_name_is_missing(packed, make_dataset) -> None:
    store = load_packed(make_dataset(packed))[3]
    with pytest.raises(DecodeError, match=r"missing \(not in"):
        store.open("nowhere.mp4")
    assert store.identify("nowhere.mp4") is None


def test_lists_and_other_splits_are_refused(packed, make_dataset) -> None:
    with pytest.raises(InputError, match=r"has its own lists; leave dataset.train_list and dataset.val_list null"):
        load_packed(make_dataset(packed, val_list="val.txt"))
    with pytest.raises(InputError, match=r"packed from split 1 of folder, not dataset.split=2"):
        load_packed(make_dataset(packed, split=2))
    assert len(load_packed(make_dataset(packed, name="kinetics400", split=2))[1]) > 0


def test_missing_file_of_records_is_noticed_at_once(packed, make_dataset, tmp_path: Path) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    next(copy.glob("*-train.*")).unlink()
    with pytest.raises(InputError, match=r"1 of the 2 files are not there, e.g. .*; copy the packed data set anew"):
        load_packed(make_dataset(copy))


@pytest.mark.parametrize("change", ["cut off", "flipped bit"])
def test_damaged_records_are_bad_videos(packed, make_dataset, tmp_path: Path, change: str) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    _, train, _, store = load_packed(make_dataset(copy))
    (first, *_) = sorted(copy.glob("*-train.*-00000-*"))
    content = bytearray(first.read_bytes())
    content[70_000] ^= 1
    first.write_bytes(content[:100] if change == "cut off" else content)
    with pytest.raises(DecodeError, match="damaged record"):
        read_all(store, train)


def test_data_packed_as_tfrecord_is_read(packed, video_set, to_tfrecord, make_dataset, tmp_path: Path) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    to_tfrecord(copy)
    class_names, train, val, store = load_packed(make_dataset(copy))
    assert class_names == ("first", "second")
    assert [train, val] == [renamed(records, video_set, copy) for records in records_of_files(video_set)]
    for path, *_ in train + val:
        assert store.read(path) == (video_set / os.path.relpath(path, copy)).read_bytes()
    (first, *_) = copy.glob("*-train.*-00000-*")
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(DecodeError, match="damaged record"):
        read_all(store, train)
    with pytest.raises(InputError, match=r"ends in the last of its records; copy the packed data set anew"):
        load_packed(make_dataset(copy))
    first.unlink()
    with pytest.raises(DecodeError, match=r"not readable .*No such file"):
        read_all(store, train)


def edit_description(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "vswin.json").read_text())
    (folder / "vswin.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 2}', '{"class_names": "ab"}', "[" * 100_000])
def test_damaged_description_is_refused(packed, make_dataset, tmp_path: Path, text: str) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    (copy / "vswin.json").write_text(text)
    with pytest.raises(InputError, match=r"vswin.json cannot be read .*pack the data anew"):
        load_packed(make_dataset(copy))


def test_what_does_not_belong_together_is_refused(packed, make_dataset, tmp_path: Path) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    edit_description(copy, format=4)
    with pytest.raises(InputError, match="has format 4, this vswin reads format 3"):
        load_packed(make_dataset(copy))
    edit_description(copy, format=3)
    rows = (copy / "videos.csv").read_bytes()
    (copy / "videos.csv").write_bytes(rows + b"train,more.avi,0,0,0,0,0\n")
    with pytest.raises(InputError, match=r"videos.csv is not the one that was packed"):
        load_packed(make_dataset(copy))
    edit_description(copy, videos_sha256=hashlib.sha256((copy / "videos.csv").read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"damaged: videos.csv has 14 videos of the split 'train', .* 13 records"):
        load_packed(make_dataset(copy))
    (copy / "videos.csv").write_bytes(rows.replace(b",0,0,", b",7,0,", 1))
    edit_description(copy, videos_sha256=hashlib.sha256((copy / "videos.csv").read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"has a label that is not there"):
        load_packed(make_dataset(copy))
    (copy / "videos.csv").unlink()
    with pytest.raises(InputError, match=r"videos.csv cannot be read .*not whole"):
        load_packed(make_dataset(copy))


def test_a_hundred_thousand_odd_rows_come_back_in_seconds(tmp_path: Path) -> None:
    names = ('a/odd, "name"\u00e9', "a/bytes\udcff", "../elsewhere/new\u2028line")
    rows = [PackedVideo("train", f"{names[n % 3]}_{n}", str(n % 400), n % 16, n, 5, "ab" * 32) for n in range(100_000)]
    start = time.process_time()
    write_rows(tmp_path / "videos.csv", rows)
    assert read_rows((tmp_path / "videos.csv").read_bytes()) == rows
    assert time.process_time() - start < 4


def test_the_catalog_reads_a_packed_root_whatever_the_data_set_is_called(video_set, pack, make_dataset, tmp_path):
    packed = pack(video_set, tmp_path / "packed")
    files, catalog = (load_catalog(make_dataset(root)) for root in (video_set, packed))
    assert catalog.class_names == files.class_names
    for subset in ("train", "val"):
        names = [(os.path.relpath(video.path, packed), video.label) for video in getattr(catalog, subset)]
        assert names == [(os.path.relpath(video.path, video_set), video.label) for video in getattr(files, subset)]
    with pytest.raises(InputError, match="packed from a data set with other classes than ucf101"):
        load_catalog(make_dataset(packed, name="ucf101"))
