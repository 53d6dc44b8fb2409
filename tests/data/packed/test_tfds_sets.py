"""TFDS's own builder of UCF101 on a small archive, without the download."""

import dataclasses
import os
import shutil
import stat
import zipfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.conftest import make_group
from vswin.data import tfds_sets
from vswin.data.bad_videos import BadVideos
from vswin.data.catalog import load_catalog
from vswin.data.class_names import read_class_names
from vswin.data.decode import PictureReader
from vswin.data.frames import FrameLoader, RamCache
from vswin.data.isolated import IsolatedVideos
from vswin.data.pipeline import make_eval_dataset
from vswin.data.tfds_sets import explain_tfds, find_prepared, load_tfds, name_in_tfds
from vswin.errors import DecodeError, InputError

TRAIN = {"Archery": 3, "HandstandPushups": 2, "YoYo": 2}
TEST = {"Archery": 2, "YoYo": 1}
CLASSES = read_class_names("ucf101")


def open_pictures(name, images, timeout_sec=None):
    return PictureReader(name, len(images), images.__getitem__, timeout_sec)


def video_name(class_name: str, group: int) -> str:
    # The lists say HandstandPushups for the folder and HandStandPushups for the file; the archive says Handstand twice.
    return f"v_{class_name}_g{group:02d}_c01.avi"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, encode) -> dict[str, str]:
    """Makes archives in the layout of those the builder downloads."""
    folder = tmp_path_factory.mktemp("archives")
    with zipfile.ZipFile(folder / "videos.zip", "w") as videos, zipfile.ZipFile(folder / "splits.zip", "w") as splits:
        for subset, classes, first_group in (("train", TRAIN, 8), ("test", TEST, 1)):
            lines = []
            for number, (class_name, count) in enumerate(classes.items(), start=1):
                for group in range(first_group, first_group + count):
                    name = video_name(class_name, group)
                    num_frames = 6 + number + group
                    path = encode(f"{subset}_{name}", "-frames:v", str(num_frames), "-c:v", "mpeg4", "-q:v", "2")
                    videos.write(path, f"UCF101/{name}")
                    listed = name.replace("HandstandPushups", "HandStandPushups")
                    lines.append(f"{class_name}/{listed}" + (f" {number}" if subset == "train" else ""))
            for split in (1, 2):
                splits.writestr(f"ucfTrainTestlist/{subset}list0{split}.txt", "\n".join(lines) + "\n")
    return {"videos": str(folder / "videos.zip"), "splits": str(folder / "splits.zip")}


@pytest.fixture(scope="module")
def offline(archives, tmp_path_factory: pytest.TempPathFactory):
    """Gives TFDS the archives instead of a download, and the program ffmpeg."""
    program = tmp_path_factory.mktemp("bin") / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec "{imageio_ffmpeg.get_ffmpeg_exe()}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(program.parent), prepend=":")
        patch.setattr(
            tfds.download.DownloadManager, "download_and_extract", lambda self, urls: self.extract(dict(archives))
        )
        yield


def prepare(dataset):
    """Makes TFDS prepare a data set, even on a machine with little space."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_sets, "_download_bytes", lambda name: 1_000_000)
        return load_tfds(dataset, CLASSES)


@pytest.fixture(scope="module")
def tfds_dir(offline, make_dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepares split 1 with TFDS, as `dataset.download=true` does."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare(ucf101(make_dataset, folder, download=True))
    return folder


def ucf101(make_dataset, folder: Path, **changes: object):
    return make_dataset(Path("none"), **{"name": "ucf101", "tfds": "ucf101", "tfds_dir": str(folder), **changes})


def counts(records, class_names) -> dict[str, int]:
    names = [class_names[record.label] for record in records]
    return {name: names.count(name) for name in sorted(set(names))}


def test_labels_and_frames_are_those_tfds_gives(tfds_dir, to_tfrecord, make_dataset, tmp_path: Path) -> None:
    class_names, train, val, store = load_tfds(ucf101(make_dataset, tfds_dir), CLASSES)
    assert class_names == CLASSES
    assert [video.path for video in val] == [f"ucf101/ucf101_1/2.0.0/test/{number:05d}" for number in range(3)]
    copy = shutil.copytree(find_prepared(ucf101(make_dataset, tfds_dir)), tmp_path / "copy")
    to_tfrecord(copy)  # the format that `as_dataset` reads
    builder = tfds.builder_from_directory(copy)
    for records, split in ((train, "train"), (val, "test")):
        encoded = list(builder.as_dataset(split, decoders={"video": tfds.decode.SkipDecoding()}))
        decoded = list(builder.as_dataset(split))
        assert len(records) == len(encoded) == len(decoded)
        for video, raw, example in zip(records, encoded, decoded, strict=True):
            with store.open(video.path) as reader:
                frames = reader.read(np.arange(reader.num_video_frames), lambda frame: frame)
            assert video.label == int(raw["label"]) == int(example["label"])
            # TFDS uses libjpeg's faster transform, OpenCV the exact one.
            exact = [tf.io.decode_jpeg(image, dct_method="INTEGER_ACCURATE") for image in raw["video"]]
            assert np.array_equal(frames, exact)
            assert frames.shape == example["video"].shape == (len(exact), 144, 176, 3)
            assert np.abs(frames - example["video"].numpy().astype(int)).max() <= 8


def test_only_the_frames_asked_for_are_decoded(tfds_dir, make_dataset, monkeypatch) -> None:
    _, train, _, store = load_tfds(ucf101(make_dataset, tfds_dir), CLASSES)
    decoded = []
    original = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(1) or original(*arguments))
    loader = FrameLoader(store=store)
    assert len(loader.load(train[0].path, 72, lambda num_frames: np.array([3, 0, 3, 5]))) == 4
    assert len(decoded) == 3
    assert loader.count_videos() == {"opencv": 1}
    cached = FrameLoader(cache=RamCache(), store=store)
    for _ in range(2):
        cached.load(train[0].path, 72, lambda num_frames: np.array([3]))
    with store.open(train[0].path) as reader:
        assert len(decoded) == 3 + reader.num_video_frames


def test_evaluation_reads_the_test_split(tfds_dir, make_dataset) -> None:
    _, _, val, store = load_tfds(ucf101(make_dataset, tfds_dir), CLASSES)
    clip = make_group("clip", num_frames=4, frame_stride=1, resize=72, crop=64, num_clips=2, num_crops=3)
    bad = BadVideos()
    (batch,) = make_eval_dataset(val, clip, 3, bad, loader=FrameLoader(store=store)).as_numpy_iterator()
    assert batch["views"].shape == (3, 6, 4, 64, 64, 3)
    assert batch["views"].std(axis=(3, 4)).min() > 0
    assert sorted(CLASSES[label] for label in batch["labels"]) == ["Archery", "Archery", "YoYo"]
    assert bad.rows() == []


def test_squashed_frames_are_warned_of(offline, make_dataset, tmp_path: Path, caplog) -> None:
    dataset = ucf101(make_dataset, tmp_path, tfds="ucf101/ucf101_1_256", download=True)
    with caplog.at_level("INFO", "vswin"):
        _, train, _, store = prepare(dataset)
    with store.open(train[0].path) as reader:
        assert reader.read(np.array([0]), lambda frame: frame).shape == (1, 256, 256, 3)
    assert "frames squashed to 256 x 256" in caplog.text


def test_cost_is_said_before_anything_is_downloaded(offline, make_dataset, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO", "vswin"):
        prepare(ucf101(make_dataset, tmp_path, split=2, download=True))
    (said,) = [record.getMessage() for record in caplog.records if "downloads and prepares" in record.getMessage()]
    assert f"ucf101/ucf101_2 in {tmp_path}, once: 0.0 GB to download, about 0 GB of disk" in said


def test_download_needs_ffmpeg_and_space(make_dataset, tmp_path: Path, monkeypatch) -> None:
    dataset = ucf101(make_dataset, tmp_path, download=True)
    monkeypatch.setattr(tfds_sets.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="with the program ffmpeg, which is not on the PATH; install it"):
        load_tfds(dataset, CLASSES)
    monkeypatch.setattr(tfds_sets.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    monkeypatch.setattr(tfds_sets.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match=rf"TFDS needs 21 GB for ucf101/ucf101_1, and 0.0 GB are free in {tmp_path}"):
        load_tfds(dataset, CLASSES)


def test_failed_preparation_says_what_stays(offline, make_dataset, tmp_path: Path, monkeypatch) -> None:
    def fail(self, urls):
        raise OSError("no route to host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", fail)
    with pytest.raises(InputError, match=r"could not prepare ucf101/ucf101_1: no route to host.*stays in"):
        prepare(ucf101(make_dataset, tmp_path, download=True))


def test_without_a_prepared_one_the_way_to_it_is_shown(make_dataset, tmp_path: Path) -> None:
    dataset = ucf101(make_dataset, tmp_path)
    assert find_prepared(dataset) is None
    way = r"dataset.download=true \(7.0 GB to download, about 21 GB of disk; needs the program ffmpeg"
    with pytest.raises(InputError, match=rf"TFDS has no ucf101/ucf101_1 in {tmp_path}; .*{way}"):
        load_tfds(dataset, CLASSES)
    assert "or set dataset.tfds_dir" in explain_tfds(dataset)


def test_missing_part_of_tfds_hides_no_other_way(make_dataset, tmp_path: Path, monkeypatch) -> None:
    def fail(name: str, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'importlib_resources'")

    monkeypatch.setattr(tfds, "builder_cls", fail)
    monkeypatch.setattr(tfds, "builder", fail)
    monkeypatch.setattr(tfds_sets.shutil, "which", lambda name: "/usr/bin/ffmpeg")
    assert "TFDS does not say how much" in explain_tfds(ucf101(make_dataset, tmp_path))
    with pytest.raises(InputError, match="TFDS could not prepare ucf101/ucf101_1: No module named 'importlib_resource"):
        load_tfds(ucf101(make_dataset, tmp_path, download=True), CLASSES)


def test_newest_version_is_taken(make_dataset, tmp_path: Path, monkeypatch) -> None:
    for version in ("2.0.0", "10.0.0", "9.0.1", "2.0.0.incompleteAB12"):
        (tmp_path / "ucf101" / "ucf101_3" / version).mkdir(parents=True)
        (tmp_path / "ucf101" / "ucf101_3" / version / "dataset_info.json").touch()
    dataset = ucf101(make_dataset, tmp_path, split=3)
    assert find_prepared(dataset) == tmp_path / "ucf101" / "ucf101_3" / "10.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset.tfds_dir = None
    assert find_prepared(dataset) == tmp_path / "ucf101" / "ucf101_3" / "10.0.0"


def test_other_classes_are_refused_and_another_order_is_mapped(tfds_dir, make_dataset) -> None:
    dataset = ucf101(make_dataset, tfds_dir)
    reversed_names, train, _, _ = load_tfds(dataset, CLASSES[::-1])
    assert reversed_names == CLASSES[::-1]
    assert counts(train, reversed_names) == TRAIN
    with pytest.raises(InputError, match="other classes than the data set: they differ in Juggling, YoYo"):
        load_tfds(dataset, [*CLASSES[:-1], "Juggling"])


def test_data_sets_without_a_name_in_tfds_say_so(make_dataset) -> None:
    dataset = make_dataset(Path("none"), source="tfds")
    with pytest.raises(InputError, match=r"no name in TFDS is known for dataset=folder; set dataset.tfds"):
        name_in_tfds(dataset)
    assert find_prepared(dataset) is None
    with pytest.raises(InputError, match=r"dataset.tfds=ucf1010: .*not found"):
        explain_tfds(make_dataset(Path("none"), tfds="ucf1010"))


def test_data_sets_without_videos_are_refused(make_dataset, tmp_path: Path) -> None:
    with tfds.testing.tmp_dir(str(tmp_path)) as folder:
        builder = tfds.testing.DummyDataset(data_dir=folder)
        # Otherwise TFDS would look for it on the network, for most of a minute.
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        with pytest.raises(InputError, match=r"no data set of labelled videos: .* and has id"):
            load_tfds(make_dataset(Path("none"), tfds="dummy_dataset", tfds_dir=folder))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_damaged_records_are_noticed(tfds_dir, to_tfrecord, make_dataset, tmp_path: Path, file_format: str) -> None:
    copy = shutil.copytree(tfds_dir, tmp_path / "copy")
    folder = copy / "ucf101" / "ucf101_1" / "2.0.0"
    if file_format == "tfrecord":
        to_tfrecord(folder)
    (file,) = folder.glob(f"*test.{file_format}-*")
    _, _, val, store = load_tfds(ucf101(make_dataset, copy), CLASSES)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DecodeError, match="damaged record"):
        store.open(val[-1].path)
    with pytest.raises(InputError, match=r"cannot be read: .*; prepare the data set anew"):
        load_tfds(ucf101(make_dataset, copy), CLASSES)
    file.unlink()
    with pytest.raises(InputError, match=r"1 of the 1 files are not there, .*; prepare the data set anew"):
        load_tfds(ucf101(make_dataset, copy), CLASSES)
    with pytest.raises(DecodeError, match="missing"):
        store.open("nowhere")
    assert store.identify("nowhere") is None
    assert store.identify(val[0].path) != store.identify(val[1].path)


def test_what_tfds_load_has_prepared_is_read_too(tfds_dir, to_tfrecord, make_dataset, tmp_path: Path) -> None:
    copy = shutil.copytree(tfds_dir, tmp_path / "copy")
    to_tfrecord(copy / "ucf101" / "ucf101_1" / "2.0.0")
    (_, train, val, store), (_, *expected, other) = (
        load_tfds(ucf101(make_dataset, folder), CLASSES) for folder in (copy, tfds_dir)
    )
    assert [train, val] == expected
    for path, *_ in train + val:
        assert list(store.read(path)) == list(other.read(path))
    path = val[0].path
    assert np.array_equal(
        *[FrameLoader(store=each).load(path, 72, lambda n: np.array([3, 0])) for each in (store, IsolatedVideos(store))]
    )


def test_labels_are_read_once_while_the_files_are_the_same(tfds_dir, make_dataset, tmp_path: Path, caplog) -> None:
    copy = shutil.copytree(tfds_dir, tmp_path / "copy")
    (kept,) = copy.rglob("vswin_labels.json")
    text = kept.read_text()
    (file,) = copy.rglob("*-test.*")
    for change in ("copied", "none", "other files", "damaged", "out of range"):
        if change == "other files":
            os.utime(file, (1, 1))
        if change in ("damaged", "out of range"):
            kept.write_text("[" if change == "damaged" else kept.read_text().replace('"test": [', '"test": [999999, '))
        caplog.clear()
        with caplog.at_level("INFO", "vswin"):
            _, train, val, _ = load_tfds(ucf101(make_dataset, copy), CLASSES)
        assert ("reads the labels of ucf101/ucf101_1/2.0.0, once" in caplog.text) == (change not in ("copied", "none"))
        assert (counts(train, CLASSES), counts(val, CLASSES)) == (TRAIN, TEST)
    assert kept.read_text() != text


def test_the_catalog_takes_what_tfds_has_where_there_are_no_videos(tfds_dir, make_dataset, tmp_path: Path) -> None:
    dataset = ucf101(make_dataset, tfds_dir, num_classes=101)
    catalog = load_catalog(dataset)
    assert (len(catalog.train), len(catalog.val)) == (sum(TRAIN.values()), sum(TEST.values()))
    assert FrameLoader(store=catalog.store).load(catalog.val[0].path, 32, lambda n: np.arange(2)).shape[0] == 2
    with pytest.raises(InputError, match=r"crcv\.ucf\.edu.*\n  Or let TFDS download.*dataset\.download=true") as caught:
        load_catalog(ucf101(make_dataset, tmp_path / "empty"))
    assert "ffmpeg" in str(caught.value)
    with pytest.raises(InputError, match=r"crcv\.ucf\.edu") as caught:
        load_catalog(ucf101(make_dataset, tfds_dir, source="videos"))
    assert "TFDS" not in str(caught.value)


def test_videos_come_before_tfds_unless_it_is_forced(tfds_dir, make_dataset, tmp_path: Path) -> None:
    for name in ("train", "test"):
        path = tmp_path / "splits" / f"{name}list01.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("Archery/v_Archery_g01_c01.avi" + (" 3\n" if name == "train" else "\n"))
    (tmp_path / "videos" / "Archery").mkdir(parents=True)
    (tmp_path / "videos" / "Archery" / "v_Archery_g01_c01.avi").touch()
    dataset = dataclasses.replace(ucf101(make_dataset, tfds_dir), root=str(tmp_path / "videos"))
    assert len(load_catalog(dataset).train) == 1
    forced = load_catalog(dataclasses.replace(dataset, source="tfds"))
    assert len(forced.train) == sum(TRAIN.values())


RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(256, size=(20, 30, 3), dtype=np.uint8) for _ in range(6)]


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def same(frame: np.ndarray) -> np.ndarray:
    return frame


def test_frames_come_in_the_order_asked_each_decoded_once(monkeypatch) -> None:
    prepared = []

    def prepare(frame: np.ndarray) -> np.ndarray:
        prepared.append(frame)
        return frame[::2]

    with open_pictures("video", [encode(image) for image in IMAGES]) as reader:
        assert (reader.path, reader.decoder, reader.num_video_frames) == ("video", "opencv", 6)
        frames = reader.read(np.array([5, 0, 5, 2]), prepare)
    assert np.array_equal(frames, [IMAGES[number][::2] for number in (5, 0, 5, 2)])
    assert len(prepared) == 3


def test_bad_images_are_named() -> None:
    for few, cause in (([], "no frames"), ([encode(IMAGES[0])], "one frame")):
        with pytest.raises(DecodeError, match=cause):
            open_pictures("short", few)
    images = [encode(IMAGES[0]), b"", b"no image", encode(IMAGES[1][:10])]
    reader = open_pictures("bad", images)
    for number in (1, 2):
        with pytest.raises(DecodeError, match=rf"bad: undecodable frame \(image {number}\)"):
            reader.read(np.array([0, number]), same)
    with pytest.raises(DecodeError, match="frame size changes"):
        reader.read(np.array([0, 3]), same)
    assert len(reader.read(np.array([3, 3]), same)) == 2


def test_frames_outside_and_time_limits_are_refused() -> None:
    content = [encode(image) for image in IMAGES]
    for numbers in ([6], [-1, 0]):
        with pytest.raises(ValueError, match="of 6 in video"):
            open_pictures("video", content).read(np.array(numbers), same)
    with pytest.raises(DecodeError, match="too slow"):
        open_pictures("video", content, 1e-9).read(np.array([0]), same)
