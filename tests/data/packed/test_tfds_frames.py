import cv2
import numpy as np
import pytest
import tensorflow as tf

from vswin.data.decode_error import DecodeError
from vswin.data.packed.tfds_frames import EncodedFrames, TfdsVideos, number_videos

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(256, size=(20, 30, 3), dtype=np.uint8) for _ in range(6)]


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def record(images: list[bytes]) -> bytes:
    feature = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[3])),
        "video": tf.train.Feature(bytes_list=tf.train.BytesList(value=images)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def same(frame: np.ndarray) -> np.ndarray:
    return frame


def test_frames_come_in_the_order_asked_each_decoded_once(monkeypatch) -> None:
    prepared = []

    def prepare(frame: np.ndarray) -> np.ndarray:
        prepared.append(frame)
        return frame[::2]

    with EncodedFrames("video", record([encode(image) for image in IMAGES])) as reader:
        assert (reader.path, reader.decoder, reader.num_video_frames) == ("video", "opencv", 6)
        frames = reader.read(np.array([5, 0, 5, 2]), prepare)
    assert np.array_equal(frames, [IMAGES[number][::2] for number in (5, 0, 5, 2)])
    assert len(prepared) == 3


def test_gray_images_become_colour() -> None:
    images = [cv2.imencode(".jpg", np.full((16, 16), level, np.uint8))[1].tobytes() for level in (50, 200)]
    frames = EncodedFrames("gray", record(images)).read(np.array([1, 0]), same)
    assert frames.shape == (2, 16, 16, 3)
    assert frames.mean(axis=(1, 2, 3)).tolist() == [200, 50]


@pytest.mark.parametrize(("images", "cause"), [([], "no frames"), ([encode(IMAGES[0])], "one frame")])
def test_fewer_than_two_frames_are_no_video(images: list[bytes], cause: str) -> None:
    with pytest.raises(DecodeError, match=cause):
        EncodedFrames("short", record(images))


def test_bad_images_are_named() -> None:
    images = [encode(IMAGES[0]), b"", b"no image", encode(IMAGES[1][:10])]
    reader = EncodedFrames("bad", record(images))
    for number in (1, 2):
        with pytest.raises(DecodeError, match=rf"bad: undecodable frame \(image {number}\)"):
            reader.read(np.array([0, number]), same)
    with pytest.raises(DecodeError, match="frame size changes"):
        reader.read(np.array([0, 3]), same)
    assert len(reader.read(np.array([3, 3]), same)) == 2


def test_frames_outside_and_time_limits_are_refused() -> None:
    content = record([encode(image) for image in IMAGES])
    for numbers in ([6], [-1, 0]):
        with pytest.raises(ValueError, match="of 6 in video"):
            EncodedFrames("video", content).read(np.array(numbers), same)
    with pytest.raises(DecodeError, match="too slow"):
        EncodedFrames("video", content, 1e-9).read(np.array([0]), same)


def test_other_records_are_damaged_ones(tmp_path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
        writer.write(b"no example")
    store = TfdsVideos(tmp_path, "tfrecord", {"a": ("file", 0), "b": ("file", 9999)})
    for path in ("a", "b"):
        with pytest.raises(DecodeError, match="damaged record"):
            store.open(path)
    assert store.identify("a") != store.identify("b")


def test_videos_are_numbered_through_the_files() -> None:
    named = number_videos("ucf101/ucf101_1/2.0.0", "test", [("x", [0, 50]), ("y", [0])])
    assert named == {
        f"ucf101/ucf101_1/2.0.0/test/0000{n}": place for n, place in enumerate([("x", 0), ("x", 50), ("y", 0)])
    }
