"""Which picture a frame is and how it is turned, in files whose headers or packets mislead."""

import csv
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest

import vswin
from vswin.cli import main
from vswin.data.decode import VideoReader
from vswin.errors import DecodeError, InputError
from vswin.evaluation.run import run_evaluation
from vswin.training.run import run_training

NUM_BITS, SIDE = 9, 96
BYTE = b"\x7f"  # an MPEG-4 picture that was not coded; a header of 6 bytes alone is another
XVID, OLD = ("-c:v", "libxvid", "-q:v", 4, "-bf", 2, "-g", 30), list(range(57))
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
DECODERS = ("auto", "opencv", "pyav")
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "dataset=folder",
    "clip.num_frames=4",
    "clip.resize=40",
    "clip.crop=32",
    "batch_size=2",
    "epochs=1",
    "clip.num_clips=2",
    "clip.num_crops=1",
    "logger.tensorboard=false",
)


def ffmpeg(*arguments: object) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def draw(number: int) -> np.ndarray:
    """Draws the bits of a number as bars."""
    image = np.full((SIDE, SIDE, 3), 40, np.uint8)
    for bit in range(NUM_BITS):
        if number >> bit & 1:
            image[:, 3 + 10 * bit : 13 + 10 * bit] = 220
    return image


def see(frames: Iterable[np.ndarray]) -> list[int]:
    """Reads numbers back from frames [..., H, W, 3]."""
    bars = [frame[:, 6 : 6 + 10 * NUM_BITS : 10].mean(axis=(0, 2)) for frame in frames]  # [bits] each
    return [int(((bar > 130) << np.arange(len(bar))).sum()) for bar in bars]


def write_lossless(path: Path, images: Iterable[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "bgr0"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Encodes 60 pictures that show their numbers, with ffmpeg's options."""
    folder = tmp_path_factory.mktemp("pixels")
    source = write_lossless(folder / "source.mkv", map(draw, range(60)))

    def run(name: str, *options: object) -> Path:
        if not (folder / name).exists():
            ffmpeg("-i", source, *options, folder / name)
        return folder / name

    return run


@pytest.fixture(scope="module")
def make_old_avi(encode) -> Callable[..., Path]:
    """Writes an AVI of 57 pictures in Xvid's packed bitstream, with inserted packets that hold no picture."""

    def make(path: Path, places: Sequence[int], is_byte: bool = True, is_key: bool = True) -> Path:
        with av.open(str(encode("xvid.avi", *XVID))) as source:
            stream = source.streams.video[0]
            packets = [(bytes(found), found.is_keyframe) for found in source.demux(stream) if found.size]
            packets = packets[: len(OLD)]  # Xvid has not written the last pictures completely
            headers = [content for content, _ in packets if len(content) == 6]  # they follow packets with two pictures
            assert len(headers) > 5
            for place in places:
                packets.insert(place, (BYTE if is_byte else headers[0], is_key))
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as target:
                copied = target.add_stream_from_template(stream)
                for number, (content, key) in enumerate(packets):
                    added = av.Packet(content)
                    added.stream, added.time_base, added.is_keyframe = copied, 1 / stream.average_rate, key
                    added.pts = added.dts = number
                    target.mux(added)
        return path

    return make


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs `vswin`; returns its exit code and output."""
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return (code if isinstance(code, int) else 1), f"{printed.out}{printed.err}{code}"

    return call


PLACES = {
    "before the first picture": ([0, 0], [0, 0, *OLD]),
    "one at the start": ([1], [0, *OLD]),
    "two at the start": ([1, 1], [0, 0, *OLD]),
    "in the middle": ([25], None),
    "at the end": ([57, 57], [*OLD, 56, 56]),
}


@pytest.mark.parametrize(
    ("place", "is_byte", "is_key"),
    [
        *((place, True, is_key) for place in PLACES for is_key in (True, False)),
        ("in the middle", False, False),
        ("at the end", False, False),
    ],
)
def test_a_frame_of_an_old_avi_is_the_picture_at_its_place(make_old_avi, tmp_path, place, is_byte, is_key):
    """The official reader counts packets; if empty packets come first, frame k is picture max(k - missing, 0)."""
    places, expected = PLACES[place]
    path = make_old_avi(tmp_path / "old.avi", places, is_byte, is_key)
    num_frames = len(OLD) + len(places)
    found = see(vswin.load_views(path, num_frames, 1, 1, 1, resize=SIDE, crop=SIDE)[0])
    if expected is not None:
        assert found == expected
    else:  # each picture once, except the one at the index of the packet, which appears twice
        assert sorted(set(found)) == OLD
        assert found[:24] + found[28:] == [*OLD[:24], *OLD[27:]]
    for decoder in DECODERS:
        with VideoReader(path, decoder) as reader:
            assert reader.num_video_frames == num_frames
            assert see(reader.read(np.arange(num_frames))) == found
            assert see(reader.read(np.array([40, 1, 56]))) == [found[40], found[1], found[56]]


def test_one_picture_and_packets_without_any_are_a_still(encode, tmp_path):
    with av.open(str(encode("xvid.avi", *XVID))) as source, av.open(str(tmp_path / "still.avi"), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for number, content in enumerate([bytes(next(source.demux(stream))), BYTE, BYTE]):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.pts, packet.dts = copied, 1 / stream.average_rate, number, number
            target.mux(packet)
    with pytest.raises(DecodeError, match="one frame"):
        VideoReader(tmp_path / "still.avi")


def test_a_check_counts_pictures(make_old_avi, tmp_path, run):
    for name in ("wave", "jump"):
        for part in ("train", "val"):
            make_old_avi(tmp_path / "videos" / part / name / "0.avi", [1, 1])
    for decode in ("decode=true", "decode=false"):
        _, printed = run("data", "check", "dataset=folder", f"dataset.root={tmp_path / 'videos'}", decode)
        assert [line.split()[1:] for line in printed.splitlines() if line.startswith("frames  ")] == [["114", "114"]]


@pytest.mark.slow
def test_old_avis_teach_and_predict_what_their_pictures_in_order_do(
    make_old_avi, compose_train, compose_evaluate, tmp_path, monkeypatch, run
):
    """Training, caches, isolated decoding, evaluation and prediction see the same frames as in lossless files."""
    for name in "ab":
        for number in range(2):
            path = make_old_avi(tmp_path / "old" / name / f"{number}.avi", [1] * (number + 1))
            capture = cv2.VideoCapture(str(path))
            pictures = [capture.read()[1] for _ in OLD]
            (tmp_path / "plain" / name).mkdir(parents=True, exist_ok=True)
            images = [pictures[0]] * (number + 1) + pictures
            write_lossless(tmp_path / "plain" / name / f"{number}.mkv", images)
    monkeypatch.chdir(tmp_path)
    losses = []
    for root, *words in (
        ("plain",),
        ("old", "dataset.isolate=true"),
        ("old", "dataset.cache=disk", "dataset.cache_dir=kept"),
    ):
        # At the videos' own size, crops of cached frames have exactly the same pixels.
        settings = (*TINY, "clip.resize=96", f"dataset.root={root}", f"output_dir=run_{len(losses)}", *words)
        history = run_training(compose_train(*settings))
        losses.append((history["loss"], history["val_loss"]))
    assert losses == losses[:1] * 3
    predicted = []
    for kind in ("old", "plain"):
        # All videos of another folder are tested, not only the run's validation videos.
        Path(kind).rename(f"{kind}_test")
        run_evaluation(compose_evaluate("run=run_1", f"dataset.root={kind}_test", f"output_dir=tested_{kind}"))
        with open(f"tested_{kind}/predictions.csv") as file:
            predicted.append([[value for key, value in row.items() if key != "path"] for row in csv.DictReader(file)])
    assert len(predicted[0]) == 4
    assert predicted[0] == predicted[1]
    code, printed = run("predict", "--model", "run_1", "old_test/a/1.avi", "--save", "films")
    assert code == 0, printed
    (path,) = Path("films").rglob("*.mp4")
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="bgr24")[: SIDE // 4] for frame in film.decode(video=0)]
    assert see(frames) == OLD


TURNS: dict[str, tuple[object, ...]] = {
    "90": ("-display_rotation", 90),
    "180": ("-display_rotation", 180),
    "horizontal": ("-display_hflip",),
    "vertical": ("-display_vflip",),
    "both": ("-display_hflip", "-display_vflip"),
    "90, horizontal": ("-display_rotation", 90, "-display_hflip"),
    "90, vertical": ("-display_rotation", 90, "-display_vflip"),
    "270, horizontal": ("-display_rotation", 270, "-display_hflip"),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_a_player_shows_is_what_is_read(encode, tmp_path, turn, suffix):
    path = tmp_path / f"turned.{suffix}"
    corner = "drawbox=w=20:h=50:t=fill:color=white"  # makes all orientations look different
    flat = encode("flat.mp4", "-vf", f"crop=96:64:0:0,{corner}", "-frames:v", 5, *H264, "-qp", 5)
    ffmpeg(*TURNS[turn], "-i", flat, "-c", "copy", path)
    shown = np.frombuffer(ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    for decoder, may_skip in (("opencv", False), ("pyav", False), ("auto", True)):
        with VideoReader(path, decoder) as reader:
            frame = reader.read(np.array([0]), may_skip=may_skip)[0]
        assert frame.shape[:2] == ((96, 64) if "0," in turn or turn == "90" else (64, 96))
        assert np.abs(frame.astype(int) - shown.reshape(frame.shape)).mean() < 1


def join(first: Path, second: Path, path: Path) -> Path:
    if path.suffix == ".ts":
        path.write_bytes(first.read_bytes() + second.read_bytes())
    else:
        listing = path.with_suffix(".txt")
        listing.write_text(f"file {first}\nfile {second}\n")
        ffmpeg("-f", "concat", "-safe", 0, "-i", listing, "-c", "copy", path)
    return path


KINDS: dict[str, tuple[object, ...]] = {
    "a.mp4": H264,
    "a.mkv": H264,
    "a.ts": H264,
    "b.ts": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "c.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuv420p"),
    "d.webm": ("-c:v", "libvpx", "-pix_fmt", "yuv420p"),
    "e.avi": ("-c:v", "mpeg4", "-q:v", "3"),
    "f.avi": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "g.ts": ("-c:v", "mpeg2video", "-q:v", "3"),
}


@pytest.mark.parametrize("name", KINDS)
def test_pictures_that_change_their_size_are_a_bad_video(encode, tmp_path, name):
    small, large = (
        encode(f"{size}_{name}", "-vf", f"scale={size}:{size}", "-g", 30, *KINDS[name]) for size in (96, 128)
    )
    for first, second in ((small, large), (large, small)):
        path = join(first, second, tmp_path / f"joined{Path(name).suffix}")
        for decoder in DECODERS:
            with pytest.raises(DecodeError, match="frame size changes"):
                VideoReader(path, decoder)
        with pytest.raises(DecodeError, match="frame size changes"):
            vswin.load_views(path, 4, 1, 1, 1, resize=SIDE, crop=SIDE)
    same = join(small, small, tmp_path / f"same{Path(name).suffix}")
    with VideoReader(same) as reader:
        assert reader.num_video_frames in (119, 120)
        assert see(reader.read(np.array([3, 50, 70]))) == [3, 50, 10]


@pytest.fixture
def changing(small_videos, encode, tmp_path) -> Path:
    """Mixes a video whose picture size changes with the small videos."""
    small, large = (encode(f"{size}_a.mp4", "-vf", f"scale={size}:{size}", "-g", 30, *H264) for size in (96, 128))
    return join(small, large, small_videos / "dark" / "joined.mp4")


def test_a_check_names_pictures_that_change_their_size(changing, small_videos, tmp_path, run):
    arguments = ("data", "check", "dataset=folder", f"dataset.root={small_videos}", f"clean_lists={tmp_path / 'lists'}")
    for decode in ("decode=false", "decode=true"):
        code, printed = run(*arguments, decode)
        assert code == 1
        assert "broken: 1" in printed
        assert "dark/joined.mp4: frame size changes ((96, 96) to (128, 128))" in printed
        lists = "".join(path.read_text() for path in (tmp_path / "lists").glob("*.csv"))
        assert "joined" not in lists
        assert lists.count(".avi") == 12


@pytest.mark.slow
def test_pictures_that_change_their_size_are_a_bad_clip_in_training_and_an_error_in_a_test(
    changing, small_videos, compose_train, compose_evaluate, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    good = [f"{name}/{number}.avi,{name}\n" for name in ("bright", "dark") for number in range(6)]
    Path("train.csv").write_text("".join([*good, "dark/joined.mp4,dark\n"]))
    Path("val.csv").write_text("".join(good[:2] + good[-2:]))
    lists = (f"dataset.root={small_videos}", "dataset.train_list=train.csv", "dataset.val_list=val.csv")
    run_training(compose_train(*TINY, *lists, "dataset.max_bad_share=0.5", "output_dir=run"))
    with open("run/bad_videos.csv") as file:
        assert "frame size changes" in file.read()
    Path("val.csv").write_text("".join([*good[:2], "dark/joined.mp4,dark\n"]))
    with pytest.raises(InputError, match="frame size changes"):
        run_evaluation(compose_evaluate("run=run"))


@pytest.mark.parametrize("formats", [("yuv420p", "yuv420p10le"), ("yuv444p", "yuv420p"), ("yuv420p10le", "yuv420p")])
def test_pictures_after_a_change_of_the_pixel_format_are_read(encode, tmp_path, formats):
    """From the change on, OpenCV returns garbage without an error."""
    parts = [encode(f"{name}.ts", "-c:v", "libx264", "-pix_fmt", name, "-g", 30) for name in formats]
    path = join(*parts, tmp_path / "joined.ts")
    for decoder in ("auto", "pyav"):
        with VideoReader(path, decoder) as reader:
            assert see(reader.read(np.arange(120))) == [*range(60), *range(60)]
            assert reader.decoder == "pyav"
    with pytest.raises(DecodeError, match="pixel format changes"):
        VideoReader(path, "opencv")


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", (*H264, "-g", 1)), ("b.avi", ("-c:v", "mjpeg", "-q:v", 3, "-pix_fmt", "yuvj420p"))]
)
def test_pictures_after_a_damaged_packet_are_read(encode, tmp_path, name, options):
    """OpenCV stops there and would repeat its last picture, as it does where a few pictures are missing."""
    whole = encode(f"whole_{name}", "-vf", "loop=loop=3:size=60", *options)  # 240 pictures
    with av.open(str(whole)) as container:
        broken = list(container.demux(video=0))[230]
        content = bytearray(whole.read_bytes())
        place = content.index(bytes(broken), broken.pos)
    content[place : place + broken.size] = bytes(broken.size)
    path = tmp_path / name
    path.write_bytes(content)
    with VideoReader(path) as reader:
        found = see(reader.read(np.arange(225, 240)))
        assert reader.decoder == "pyav"
    assert found[:5] == [45, 46, 47, 48, 49]
    assert found[-5:] == [56, 57, 58, 59, 59]
    with VideoReader(path) as reader:
        assert see(reader.read(np.array([5, 50]))) == [5, 50]
        assert reader.decoder == "opencv"


def test_pictures_that_are_never_shown_do_not_make_a_file_truncated(encode, tmp_path):
    options = ("-c:v", "libvpx", "-auto-alt-ref", 1, "-lag-in-frames", 16, "-pix_fmt", "yuv420p", "-b:v", "100k")
    log = ("-passlogfile", tmp_path / "log")
    source = encode("all.mkv", "-c:v", "ffv1")
    ffmpeg("-i", source, *options, *log, "-pass", 1, "-f", "null", "-")
    path = tmp_path / "hidden.webm"
    ffmpeg("-i", source, *options, *log, "-pass", 2, path)
    for decoder in DECODERS:
        with VideoReader(path, decoder) as reader:
            assert reader.num_video_frames > 63  # the official reader counts packets
            found = see(reader.read(np.arange(reader.num_video_frames)))
            assert found == [*range(60), *[59] * (reader.num_video_frames - 60)]
            assert len(reader.repeats) == reader.num_video_frames - 60


def trim(path: Path, start: int, end: int, target: Path) -> Path:
    """Writes into the edit list of an MP4 or MOV file (25 pictures per second) which pictures to show."""
    content = bytearray(path.read_bytes())
    scales = [struct.unpack_from(">I", content, content.index(box) + 16)[0] for box in (b"mvhd", b"mdhd")]
    place = content.index(b"elst") + 12
    (offset,) = struct.unpack_from(">i", content, place + 4)
    struct.pack_into(">Ii", content, place, (end - start) * scales[0] // 25, offset + start * scales[1] // 25)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(("start", "end"), [(0, 60), (40, 50), (23, 37), (0, 18)])
@pytest.mark.parametrize("name", ["long.mp4", "long.mov"])
def test_what_lies_inside_an_edit_list_counts(encode, tmp_path, run, name, start, end):
    whole = encode(name, *H264, "-g", 10, "-bf", 2, "-movflags", "faststart")
    path = trim(whole, start, end, tmp_path / name)
    for decoder in DECODERS:
        for may_skip in (False, True):
            with VideoReader(path, decoder) as reader:
                assert reader.num_video_frames == end - start
                found = see(reader.read(np.arange(end - start), may_skip=may_skip))
                assert found == list(range(start, end))
    for folder in ("train/wave", "train/jump", "val/wave", "val/jump"):
        trim(whole, start, end, tmp_path / "videos" / folder / name)
    _, printed = run("data", "check", "dataset=folder", f"dataset.root={tmp_path / 'videos'}", "decode=true")
    assert "broken" not in printed
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 200])
    with pytest.raises(DecodeError, match="truncated"):
        VideoReader(path)
