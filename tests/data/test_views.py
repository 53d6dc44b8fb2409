import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import make_group
from vswin.config.schema import AugmentConfig, ClipConfig
from vswin.data import frames, transforms
from vswin.data.decode import VIDEO_FILES, VideoReader
from vswin.data.frames import DiskCache, FrameLoader, RamCache
from vswin.data.isolated import IsolatedVideos
from vswin.data.sampling import uniform_clips
from vswin.data.views import TrainClip, load_protocol_views, load_train_clip, load_views
from vswin.errors import DecodeError, InputError

CLIPS = Path(__file__).parent.parent / "clips"


def small_clip(**changes: object) -> ClipConfig:
    options = {
        "num_frames": 4,
        "frame_stride": 2,
        "resize": 40,
        "crop": 32,
        "num_clips": 2,
        "num_crops": 3,
        "sampling": "dense",
        "views_per_step": 1,
    }
    return make_group("clip", **{**options, **changes})


def test_views_are_ordered_crop_by_crop(write_video, frames_seen) -> None:
    path = write_video("views.avi", 19)
    views = load_views(path, num_frames=4, frame_stride=2, num_clips=3, num_crops=3, resize=32, crop=32)
    assert views.shape == (9, 4, 32, 32, 3)
    assert views.dtype == np.uint8
    assert views.flags.c_contiguous
    assert frames_seen(views) == uniform_clips(19, 4, 2, 3).ravel().tolist() * 3


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (33, 47), (16, 90)])
def test_any_shape_of_video_gives_square_views(write_video, height: int, width: int) -> None:
    path = write_video(f"shape_{height}x{width}.avi", 6, height, width)
    assert load_views(path, 3, 1, 1, 3, resize=24, crop=24).shape == (3, 3, 24, 24, 3)
    assert load_views(path, 3, 1, 2, 1, resize=40, crop=24).shape == (2, 3, 24, 24, 3)


def test_crops_are_left_right_middle_of_a_landscape_and_top_bottom_middle_of_a_portrait(ffmpeg, tmp_path: Path) -> None:
    for name, size, ramp in (("wide.avi", "96x48", "X"), ("tall.avi", "48x96", "Y")):
        path = str(tmp_path / name)
        source = f"nullsrc=s={size}:d=0.2,geq=lum=16+2*{ramp}:cb=128:cr=128"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "mjpeg", "-q:v", "2", path)
        first, last, middle = load_views(path, 2, 1, 1, 3, resize=48, crop=48).mean(axis=(1, 2, 3, 4))
        assert first + 30 < middle < last - 30
        assert abs((first + last) / 2 - middle) < 3


def test_segments_spread_over_the_whole_video(write_video, frames_seen) -> None:
    views = load_views(write_video("seg.avi", 17), 4, 1, 1, 3, resize=32, crop=32, sampling="segments")
    assert frames_seen(views) == [2, 6, 10, 14] * 3


def test_short_video_loops(write_video, frames_seen) -> None:
    views = load_views(write_video("loop.avi", 3), 5, 1, 1, 1, resize=32, crop=32)
    assert frames_seen(views) == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_crops": 2}, "num_crops=2"),
        ({"sampling": "random"}, "sampling=random"),
        ({"sampling": "segments"}, "num_clips=4"),
        ({"num_clips": 0}, "num_clips=0"),
        ({"crop": 256}, "crop=256"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_views(CLIPS / "test.avi", **options)


def test_bad_file_is_a_decode_error(bad_files) -> None:
    with pytest.raises(DecodeError, match="sound only"):
        load_views(bad_files["audio"])


def test_a_configured_protocol_is_that_of_load_views() -> None:
    path = CLIPS / "test.avi"
    three = load_protocol_views(path, small_clip(), FrameLoader())
    assert np.array_equal(three, load_views(path, 4, 2, 2, 3, resize=40, crop=32))
    one = load_protocol_views(path, small_clip(num_crops=1), FrameLoader())
    assert np.array_equal(one, load_views(path, 4, 2, 2, 1, resize=40, crop=32))


@pytest.fixture
def random_box(make_augment) -> AugmentConfig:
    return make_augment(crop_area=[0.08, 1.0], crop_aspect=[0.75, 1.33], flip=0.5)


def load(
    name: str, clip: ClipConfig, augment: AugmentConfig, seed: int, loader: FrameLoader | None = None
) -> TrainClip:
    rng = np.random.default_rng(seed)
    return load_train_clip(str(CLIPS / name), clip, augment, True, rng, loader or FrameLoader())


def test_train_clip_is_a_function_of_the_generator(make_augment) -> None:
    augment = make_augment(crop_area=[0.1, 1.0], flip=0.5, color_jitter=[0.2, 0.2, 0.2, 0.1], rand_augment="official")
    one, same, other = (load("test.avi", small_clip(), augment, seed).pixels for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == ((4, 32, 32, 3), np.uint8)
    assert one.flags.c_contiguous
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("sampling", ["dense", "segments"])
def test_train_clip_samples_as_configured(write_video, frames_seen, make_augment, sampling: str) -> None:
    path = write_video("train.avi", 20)
    starts = set()
    for seed in range(100):
        drawn = load(path, small_clip(sampling=sampling), make_augment(), seed)
        seen = frames_seen(drawn.pixels)
        assert seen == drawn.numbers.tolist()
        starts.add(seen[0])
        if sampling == "dense":
            assert np.diff(seen).tolist() == [2, 2, 2]
        else:
            assert all(abs(number - middle) <= 3 for number, middle in zip(seen, (2, 7, 12, 17), strict=True))
    assert starts == (set(range(13)) if sampling == "dense" else set(range(6)))


def test_flip_needs_both_the_draw_and_the_permission(make_augment) -> None:
    def pixels(flip: float, allow_flip: bool) -> np.ndarray:
        arguments = (small_clip(resize=32), make_augment(flip=flip), allow_flip, np.random.default_rng(3))
        return load_train_clip(str(CLIPS / "test.avi"), *arguments, FrameLoader()).pixels

    plain = pixels(0.0, True)
    assert np.array_equal(pixels(1.0, True), plain[:, :, ::-1])
    assert np.array_equal(pixels(1.0, False), plain)


def test_changes_are_drawn_in_order_and_described(make_augment) -> None:
    augment = make_augment(flip=1.0, color_jitter=[0.2, 0, 0, 0], rand_augment="no_flip", rand_augment_ops=2)
    changes = load("test.avi", small_clip(), augment, 0).changes
    assert len(changes) == 5
    assert changes[0] == "mirrored"
    assert changes[1].startswith("brightness jittered")
    assert changes[2].startswith("sides cut")
    assert load("test.avi", small_clip(), make_augment(), 0).changes == []


def test_loading_views_does_not_import_tensorflow() -> None:
    code = (
        "import sys, vswin; views = vswin.load_views(sys.argv[1], 4, 2, 1, 1, 40, 32); "
        "assert views.shape == (1, 4, 32, 32, 3); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(CLIPS / "test.avi")], check=True)


def official_pixels(name: str, clip: ClipConfig, drawn: TrainClip) -> np.ndarray:
    """Resizes whole frames, cuts the drawn box out of them and resizes again, as the official pipeline does."""
    whole = FrameLoader().load(CLIPS / name, clip.resize, lambda _: drawn.numbers)
    boxes = transforms.crop(whole, drawn.box)
    pixels = np.stack([cv2.resize(box, (clip.crop, clip.crop), interpolation=cv2.INTER_LINEAR) for box in boxes])
    return pixels[:, :, ::-1] if drawn.changes else pixels


@pytest.mark.parametrize(
    ("name", "resize"), [("demo.mp4", 256), ("test.avi", 240), ("test.avi", 256), ("demo.mp4", 64)]
)
def test_train_clip_equals_the_official_one_where_its_first_resize_does_nothing(
    random_box, name: str, resize: int
) -> None:
    clip = small_clip(resize=resize, crop=56)
    for seed in range(5):
        drawn = load(name, clip, random_box, seed)
        official = official_pixels(name, clip, drawn)
        if (name, resize) in (("demo.mp4", 256), ("test.avi", 240)):
            assert np.array_equal(drawn.pixels, official)
        else:
            # Enlarging twice blurs, and reducing by four samples other pixels; no other difference is allowed.
            difference = cv2.blur(drawn.pixels[0], (5, 5)).astype(int) - cv2.blur(official[0], (5, 5))
            assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("kind", ["ram", "disk", "isolated", "no room"])
def test_with_a_cache_crops_are_the_official_ones(random_box, tmp_path: Path, monkeypatch, kind: str) -> None:
    """Sessions may have more or less memory: pixels do not depend on whether the cache has room for a video."""
    store = IsolatedVideos(VIDEO_FILES) if kind == "isolated" else VIDEO_FILES
    if kind == "no room":
        monkeypatch.setattr(frames, "LONGEST_KEPT", 0)
    loader = FrameLoader(cache=DiskCache(tmp_path) if kind == "disk" else RamCache(), store=store)
    clip = small_clip(resize=64)
    for seed in (4, 5):
        drawn = load("demo.mp4", clip, random_box, seed, loader)
        assert np.array_equal(drawn.pixels, official_pixels("demo.mp4", clip, drawn))
    loader.close()


def test_train_clip_is_the_same_isolated(random_box) -> None:
    loader = FrameLoader(store=IsolatedVideos(VIDEO_FILES))
    for name, resize in (("demo.mp4", 256), ("test.avi", 64)):
        here, there = (load(name, small_clip(resize=resize), random_box, 4, each) for each in (None, loader))
        assert np.array_equal(here.pixels, there.pixels)
        assert here.numbers.tolist() == there.numbers.tolist()
        assert here[2:] == there[2:]
    loader.close()


def test_training_may_skip_frames_and_evaluation_may_not(make_augment, monkeypatch) -> None:
    asked = []
    original = VideoReader.read

    def read(self: VideoReader, numbers: np.ndarray, prepare: object, may_skip: bool = False) -> np.ndarray:
        asked.append(may_skip)
        return original(self, numbers, prepare, may_skip)

    monkeypatch.setattr(VideoReader, "read", read)
    loader = FrameLoader()
    load_protocol_views(CLIPS / "demo.mp4", small_clip(), loader)
    assert loader.count_videos() == {"opencv": 1}
    load("demo.mp4", small_clip(), make_augment(), 0, loader)
    assert loader.count_videos() == {"pyav": 1}
    assert asked == [False, True]
