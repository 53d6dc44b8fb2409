"""Segments, boxes and folders of pictures are samples like whole videos: in lists, clips, caches and packed data."""

import shutil
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.conftest import make_group
from vswin.config.compose import compose_config
from vswin.config.schema import DataCheckConfig, DataPrepareConfig
from vswin.data.catalog import load_catalog
from vswin.data.check import run_check
from vswin.data.decode import VIDEO_FILES, VideoReader, read_whole
from vswin.data.frames import DiskCache, FrameLoader, RamCache
from vswin.data.isolated import IsolatedVideos
from vswin.data.prepare import run_prepare
from vswin.data.samples import WHOLE, Part, Region, Segment, split_name
from vswin.data.seeking import SoughtFrames
from vswin.data.views import load_protocol_views, load_train_clip
from vswin.errors import DecodeError, InputError

CLIPS = Path(__file__).parents[1] / "clips"
H264 = {"x264-params": "keyint=12:bframes=3:open-gop=1"}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Eighty frames of a real clip, uint8 [H, W, 3] RGB."""
    with VideoReader(CLIPS / "demo.mp4") as reader:
        return list(reader.read(np.arange(80), lambda frame: cv2.resize(frame, (96, 64))))


def encode(path, pictures, codec="libx264", options=None, rate=25, times=None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        tick = Fraction(1, 1000) if times else Fraction(1, rate)
        stream.codec_context.time_base = tick
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def crcs(frames: np.ndarray) -> list[int]:
    return [zlib.crc32(frame.tobytes()) for frame in frames]


def read(path: str, part: Part, decoder: str = "auto") -> np.ndarray:
    with VideoReader(path, decoder, part=part) as reader:
        return reader.read(np.arange(reader.num_video_frames))


@pytest.mark.parametrize(
    ("name", "codec", "options", "is_sought"),
    [
        ("open.mp4", "libx264", H264, True),
        ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=20"}, True),
        ("long_groups.mkv", "libx264", {}, True),
        ("hevc.mp4", "libx265", {"x265-params": "keyint=12:log-level=none"}, True),
        ("vp9.webm", "libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}, True),
        ("vp8.webm", "libvpx", {"g": "20", "cpu-used": "8"}, False),
        ("old.avi", "mpeg4", {"g": "12", "bf": "2"}, False),
        ("stream.ts", "libx264", {}, False),
    ],
)
def test_a_segment_has_the_frames_of_the_whole_file(tmp_path, pictures, name, codec, options, is_sought) -> None:
    path = encode(tmp_path / name, pictures, codec, options)
    decoder = "pyav" if is_sought else "auto"
    with VideoReader(path, decoder) as reader:
        whole, times = crcs(reader.read(np.arange(reader.num_video_frames))), reader.read_times()
    for first, end in ((0, 80), (0, 5), (13, 14), (30, 71), (77, 80)):
        until = float(times[end]) if end < len(times) else np.inf
        for segment in (Segment(first, end, True), Segment(round(float(times[first]), 3), round(until, 3))):
            with VideoReader(path, decoder, part=Part(segment)) as reader:
                assert isinstance(reader._packets, SoughtFrames) == is_sought
                numbers = np.array([end - first - 1, 0, (end - first) // 2])
                assert crcs(reader.read(numbers)) == [whole[first + number] for number in numbers]
                assert crcs(reader.read(np.arange(reader.num_video_frames))) == whole[first:end]
                assert np.array_equal(reader.read_times(), times[first:end], equal_nan=True)


def test_times_of_a_variable_rate_count(tmp_path, pictures) -> None:
    stamps = np.cumsum([10 + 90 * (number % 3) for number in range(40)]).tolist()  # milliseconds
    path = encode(tmp_path / "variable.mkv", pictures[:40], options=H264, times=stamps)
    whole = crcs(read(path, WHOLE, "pyav"))
    seconds = (np.array(stamps) - stamps[0]) / 1000
    wanted = (seconds >= 1) & (seconds < 2.5)
    assert crcs(read(path, Part(Segment(1, 2.5)))) == [crc for crc, is_in in zip(whole, wanted, strict=True) if is_in]


@pytest.mark.parametrize(
    ("segment", "cause"),
    [
        (Segment(3.2, 9), "segment outside the video"),
        (Segment(80, 90, True), "segment outside the video"),
        (Segment(1.005, 1.01), "segment outside the video"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_segment_outside_the_video_is_a_bad_video(tmp_path, pictures, segment, cause, name) -> None:
    path = encode(tmp_path / name, pictures, "libx264" if name == "a.mp4" else "mpeg4")
    with pytest.raises(DecodeError) as caught:
        read(path, Part(segment))
    assert caught.value.cause == cause


@pytest.fixture(scope="module")
def film(tmp_path_factory, pictures) -> tuple[Path, str, list[str]]:
    """Four short files, and a film of their packets one after the other, whose frames are therefore the same."""
    root = tmp_path_factory.mktemp("film")
    cuts = [encode(root / "cut" / f"{i}.mp4", pictures[20 * i : 20 * i + 20], options=H264) for i in range(4)]
    with av.open(str(root / "film.mp4"), "w") as film:
        stream = None
        for number, cut in enumerate(cuts):
            with av.open(cut) as source:
                stream = stream or film.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts += round(number * 0.8 / packet.time_base)
                        packet.dts += round(number * 0.8 / packet.time_base)
                        packet.stream = stream
                        film.mux(packet)
    return root, str(root / "film.mp4"), cuts


LIST = """path,label,start,end,group
film.mp4,hop,0:00:00,0:00:00.800,a
film.mp4,run,0.8,1.6,b
film.mp4,hop,1.6,2.4,c
film.mp4,run,2.4,,d
"""


def load_list(root: Path, text: str, is_given: bool = False, **keys: object):
    (root / "list.csv").write_text(text)
    keys = {"root": str(root), "train_list": str(root / "list.csv"), "val_list": str(root / "list.csv"), **keys}
    return load_catalog(make_group("dataset", **keys), is_given)


@pytest.mark.parametrize("how", ["plain", "isolated", "ram", "disk"])
def test_segments_of_a_film_give_the_clips_of_the_cut_files(film, tmp_path, how) -> None:
    root, path, cuts = film
    (root / "other.csv").write_text("path,label\ncut/0.mp4,hop\n")
    samples = load_list(root, LIST, val_list=str(root / "other.csv")).train
    assert [sample.name for sample in samples] == [
        f"{path}#t=0,0.8",
        f"{path}#t=0.8,1.6",
        f"{path}#t=1.6,2.4",
        f"{path}#t=2.4,",
    ]
    assert [(sample.label, sample.group) for sample in samples] == [(0, "a"), (1, "b"), (0, "c"), (1, "d")]
    caches = {"ram": RamCache(), "disk": DiskCache(tmp_path)}
    store = IsolatedVideos(VIDEO_FILES) if how == "isolated" else VIDEO_FILES
    clip = make_group("clip", num_frames=4, frame_stride=2, resize=32, crop=32, num_clips=2, num_crops=3)
    augment = make_group("augment", crop_area=[0.2, 0.9], flip=0.5)
    for _ in range(2):
        loaders = [FrameLoader("pyav", 60, caches.get(how), store) for _ in range(2)]
        for sample, cut in zip(samples, cuts, strict=True):
            views = [
                load_protocol_views(sample.path, clip, loaders[0], sample.part),
                load_protocol_views(cut, clip, loaders[1]),
            ]
            assert crcs(views[0]) == crcs(views[1])
            draws = (clip, augment, True)
            clips = [
                load_train_clip(sample.path, *draws, np.random.default_rng(3), loaders[0], sample.part),
                load_train_clip(cut, *draws, np.random.default_rng(3), loaders[1]),
            ]
            assert crcs(clips[0].pixels) == crcs(clips[1].pixels)
            assert clips[0].numbers.tolist() == clips[1].numbers.tolist()


@pytest.mark.parametrize("suffix", ["", ",px"])
def test_a_box_is_cut_out_before_anything_else(film, suffix) -> None:
    root, path, _ = film
    box = "0.25,0.5,0.75,1" if not suffix else "24,32,72,64"
    samples = load_list(root, f"path,label,x1,y1,x2,y2\nfilm.mp4,hop,{box}\ncut/0.mp4,run,,,,\n").train
    clip = make_group("clip", num_frames=4, frame_stride=2, resize=32, crop=32, num_clips=1, num_crops=1)
    whole = read(path, WHOLE)
    numbers = 36 + 2 * np.arange(4)
    expected = [cv2.resize(frame[32:64, 24:72], (48, 32))[:, 8:40] for frame in whole[numbers]]
    views = load_protocol_views(path, clip, FrameLoader(), samples[0].part)
    assert crcs(views[0]) == crcs(np.array(expected))
    assert samples[1].part == WHOLE


def test_a_box_is_widened_by_the_margin_and_ends_at_the_edges(film) -> None:
    root, path, _ = film
    text = "path,label,x1,y1,x2,y2\nfilm.mp4,hop,10,8,50,28\ncut/0.mp4,run,0.5,0.5,0.9,0.9\n"
    first, second = load_list(root, text, box_margin=0.5).train
    assert first.part.region == Region(0, 0, 70, 38)
    assert second.part.region == pytest.approx((0.3, 0.3, 1.1, 1.1, False))
    assert read(path, first.part).shape[1:3] == (38, 70)
    assert read(second.path, second.part).shape[1:3] == (45, 67)
    with pytest.raises(DecodeError, match="box outside the picture"):
        read(path, Part(None, Region(200, 10, 210, 20)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("film.mp4,hop,3,2,,,,,,", "segment t=3,2 ends before it starts"),
        ("film.mp4,hop,-1,2,,,,,,", "start is '-1'; expected seconds from 0, or a time"),
        ("film.mp4,hop,1:2:3:4,9,,,,,,", "start is '1:2:3:4'"),
        ("film.mp4,hop,,,50,50,90,10,,", "x1 < x2"),
        ("film.mp4,hop,,,50,50,90,,,", "the box x1=50, y1=50, x2=90, y2=; all four are needed"),
        ("film.mp4,hop,,,a,50,90,99,,", "x1 is 'a'; expected a number"),
        ("film.mp4,hop,,,,,,,,sometimes", "the split 'sometimes'"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(film, row, message) -> None:
    header = "path,label,start,end,x1,y1,x2,y2,group,split\n"
    with pytest.raises(InputError, match=r"list.csv:2: ") as caught:
        load_list(film[0], f"{header}{row}\nfilm.mp4,run,1,2,,,,,,\n")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1:02,9,,0,", "start_frame is '1:02'; expected a frame number"),
        ("3.5,9,,0,", "start_frame is '3.5'; expected a frame number"),
        ("3,9,0,0,", "fps is '0'; expected frames per second, above 0"),
        ("3,9,,0,1", "seconds and frame numbers at once"),
    ],
)
def test_frame_numbers_and_rates_are_checked_too(film, row, message) -> None:
    first, end, fps, _, start = row.split(",")
    header = "path,label,start_frame,end_frame,fps,start\n"
    with pytest.raises(InputError, match=r"list.csv:2: ") as caught:
        load_list(film[0], f"{header}film.mp4,hop,{first},{end},{fps},{start}\nfilm.mp4,run,,,,\n")
    assert message in str(caught.value)


def test_one_list_has_all_subsets_in_a_column(film) -> None:
    root, path, _ = film
    text = "path,label,start,end,split\n" + "".join(
        f"film.mp4,{label},{i * 0.4},{i * 0.4 + 0.4},{split}\n"
        for i, (label, split) in enumerate(
            zip("abababab", ["train"] * 4 + ["Validation"] * 2 + ["test"] * 2, strict=True)
        )
    )
    catalog = load_list(root, text, val_list=None)
    assert [len(videos) for videos in (catalog.train, catalog.val, catalog.test)] == [4, 2, 2]
    assert catalog.test[1].name == f"{path}#t=2.8,3.2"
    tested = load_list(root, text, True, train_list=None, val_list=None, test_list=str(root / "list.csv"))
    assert [len(videos) for videos in (tested.train, tested.val, tested.test)] == [0, 0, 2]
    assert sum("by its column split" in note for note in tested.notes) == 2


def test_seconds_and_frames_name_the_same_part_of_folders_of_pictures(film, pictures) -> None:
    root = film[0]
    for number, picture in enumerate(pictures[:30]):
        for folder in ("hop/frames", "run/other"):
            (root / "sets" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "sets" / folder / f"img_{number + 1}.png"), picture[..., ::-1])
    text = (
        "path,label,start,end,start_frame,end_frame,fps\n"
        "sets/hop/frames,hop,0.5,1.5,,,10\nsets/hop/frames,hop,,,5,15,\nsets/run/other,run,0.2,,,,\n"
    )
    with pytest.raises(InputError, match="name"):
        load_list(root, "path,label\nsets,hop\nsets/run,run\n")
    catalog = load_list(root, text)
    assert [str(sample.part) for sample in catalog.train] == ["#frames=5,15", "#frames=5,"]
    with VIDEO_FILES.open(catalog.train[0].path, part=catalog.train[0].part) as reader:
        assert crcs(reader.read(np.arange(10), lambda frame: frame)) == crcs(np.array(pictures[5:15]))


def test_folders_of_numbered_pictures_are_videos_of_class_folders(tmp_path, pictures, film) -> None:
    for label in ("hop", "run"):
        for video in ("a", "b"):
            folder = tmp_path / label / video
            folder.mkdir(parents=True)
            for number in range(12):
                cv2.imwrite(str(folder / f"{number}.jpg"), pictures[number])
        shutil.copy(film[2][0], tmp_path / label / "c.mp4")
        (tmp_path / label / "thumbnails").mkdir()
        for name in ("cover", "face"):
            cv2.imwrite(str(tmp_path / label / "thumbnails" / f"{name}.png"), pictures[0])
    catalog = load_catalog(make_group("dataset", root=str(tmp_path)))
    names = sorted(Path(sample.path).relative_to(tmp_path).as_posix() for sample in catalog.train + catalog.val)
    assert names == ["hop/a", "hop/b", "hop/c.mp4", "run/a", "run/b", "run/c.mp4"]
    assert "left out of the class folders: 4 other files (4 .png)" in catalog.notes
    with VIDEO_FILES.open(str(tmp_path / "hop" / "a")) as reader:
        assert reader.num_video_frames == 12
        shown = reader.read(np.array([11, 9]), lambda frame: frame)
    assert np.abs(shown[1].astype(int) - pictures[9][..., ::-1]).mean() < 12  # OpenCV wrote them as BGR
    assert read_whole(str(tmp_path / "hop" / "a")) == read_whole(str(tmp_path / "hop" / "a"))


def test_names_of_samples_can_be_read_back() -> None:
    for part in (
        WHOLE,
        Part(Segment(0.5)),
        Part(Segment(3, 99, True)),
        Part(None, Region(0.25, 0, 1, 0.5, False)),
        Part(Segment(7200.125, 7201), Region(1, 2, 300, 400)),
    ):
        assert split_name(f"a#b/c.mp4{part}") == ("a#b/c.mp4", part)
    assert split_name("a#tag.mp4") == ("a#tag.mp4", WHOLE)
    for odd in ("clip#", "a#t=..,1", "a#t=1", "a#box=1,2,3", "a#box=--1,2,3,4", "a#t=1,2&box="):
        assert split_name(odd)[0] in (odd, "a")
    assert split_name("a#t=..,1") == ("a#t=..,1", WHOLE)
    assert split_name("a#box=1,2,3") == ("a#box=1,2,3", WHOLE)


def test_packed_segments_boxes_and_pictures_are_the_same_samples(film, tmp_path, pictures) -> None:
    root = film[0]
    (root / "pictures").mkdir(exist_ok=True)
    for number, picture in enumerate(pictures[:12]):
        cv2.imwrite(str(root / "pictures" / f"{number}.png"), picture)
    rows = (
        *("film.mp4,hop,0.2,1,,,,,a,train", "film.mp4,run,1,1.4,0,0,0.5,0.5,b,train", "pictures,hop,0.2,,,,,,,train"),
        *("cut/1.mp4,run,,,,,,,,val", "film.mp4,hop,2,,,,,,,val"),
    )
    plain = load_list(root, "\n".join(["path,label,start,end,x1,y1,x2,y2,group,split", *rows]), val_list=None)
    keys = ["dataset=folder", f"dataset.root={root}", f"dataset.train_list={root / 'list.csv'}", "shards=2"]
    run_prepare(compose_config("data_prepare", [*keys, f"output_dir={tmp_path / 'packed'}"], DataPrepareConfig))
    packed = load_catalog(make_group("dataset", root=str(tmp_path / "packed")))
    for subset in ("train", "val"):
        for sample, other in zip(getattr(plain, subset), getattr(packed, subset), strict=True):
            assert sample[1:] == other[1:]
            with VIDEO_FILES.open(sample.path, part=sample.part) as reader:
                frames = crcs(reader.read(np.arange(reader.num_video_frames), lambda frame: frame))
            with packed.store.open(other.path, part=other.part) as reader:
                assert crcs(reader.read(np.arange(reader.num_video_frames), lambda frame: frame)) == frames


def test_the_check_finds_what_is_wrong_with_segments(film, tmp_path, capsys) -> None:
    root = film[0]
    (root / "list.csv").write_text(
        "path,label,start,end,split\nfilm.mp4,hop,0,2,train\nfilm.mp4,run,1.5,2.2,train\nfilm.mp4,hop,2.1,9,val\n"
        "film.mp4,run,30,40,val\nfilm.mp4,hop,0.1,0.2,train\nfilm.mp4,hop,1,1.2,val\ncut/0.mp4,hop,,,train\ncut/0.mp4,hop,0.1,0.3,val\n"
    )
    keys = ["dataset=folder", f"dataset.root={root}", f"dataset.train_list={root / 'list.csv'}"]
    with pytest.raises(SystemExit):
        run_check(
            compose_config(
                "data_check", [*keys, f"clean_lists={tmp_path}", f"report={tmp_path / 'report.csv'}"], DataCheckConfig
            )
        )
    printed = " ".join(capsys.readouterr().out.split())
    assert "broken: 1 film.mp4#t=30,40: segment outside the video" in printed
    assert "in training and validation: 3" in printed
    report = (tmp_path / "report.csv").read_text()
    for name, other in (
        ("film.mp4#t=1,1.2", "overlaps t=0,2, training, hop"),  # though another segment begins between them
        ("film.mp4#t=2.1,9", "overlaps t=1.5,2.2, training, run"),
        ("cut/0.mp4#t=0.1,0.3", "overlaps the whole video, training, hop"),
    ):
        assert any(name in line and other in line for line in report.splitlines()), (name, other)
    assert "overlap: 2 film.mp4#t=0.1,0.2: overlaps t=0,2, training, hop" in printed
    assert "beyond the end: 1 film.mp4#t=2.1,9: the segment ends at 9 s, the video before it" in printed
    assert "short: 7 film.mp4#t=0,2: 50 frames, a clip spans 63" in printed
    assert (
        tmp_path / "val.csv"
    ).read_text() == "path,label,start,end\nfilm.mp4,hop,2.1,9\nfilm.mp4,hop,1,1.2\ncut/0.mp4,hop,0.1,0.3\n"


def test_groups_and_the_segments_of_a_film_stay_together(film) -> None:
    root = film[0]
    rows = [f"cut/{i % 4}.mp4,{'ab'[i % 2]},{i / 100},{i / 100 + 0.4},person {i // 4}\n" for i in range(40)]
    catalog = load_list(root, "path,label,start,end,group\n" + "".join(rows), val_list=None)
    persons = [{sample.group for sample in videos} for videos in (catalog.train, catalog.val)]
    assert not persons[0] & persons[1]
    assert len(persons[1]) == 2
    assert [sample.label for sample in catalog.val].count(0) == len(catalog.val) / 2
    shuffled = load_list(root, "path,label,start,end,group\n" + "".join(rows[::-1]), val_list=None)
    assert set(shuffled.val) == set(catalog.val)
    without = [row.rpartition(",")[0] + "\n" for row in rows]
    files = load_list(root, "path,label,start,end\n" + "".join(without), val_list=None, val_fraction=0.5)
    assert not {sample.path for sample in files.train} & {sample.path for sample in files.val}
    one = [f"film.mp4,{'ab'[i % 2]},{i / 10},{i / 10 + 0.4}\n" for i in range(20)]
    alone = load_list(root, "path,label,start,end\n" + "".join(one), val_list=None)
    assert len(alone.val) == 4
    assert any("segments of one video" in note for note in alone.notes)


def test_a_group_in_two_lists_is_refused(film) -> None:
    rows = "film.mp4,a,0,1,me,train\nfilm.mp4,b,1,2,you,train\nfilm.mp4,a,2,3,me,val\n"
    with pytest.raises(InputError, match=r"the group 'me' has training and validation samples, for example .*t=0,1"):
        load_list(film[0], "path,label,start,end,group,split\n" + rows, val_list=None)


def test_a_class_keeps_its_only_group_for_training(film) -> None:
    rows = "cut/0.mp4,a,,,x\ncut/1.mp4,b,0,0.4,y\ncut/1.mp4,b,0.4,,z\ncut/2.mp4,b,,,z\n"
    catalog = load_list(film[0], "path,label,start,end,group\n" + rows, val_list=None, val_fraction=0.5)
    assert {sample.label for sample in catalog.train} == {0, 1}
    assert {sample.label for sample in catalog.val} == {1}
    with pytest.raises(InputError, match="one group only"):
        load_list(film[0], "path,label,group\ncut/0.mp4,a,x\ncut/1.mp4,b,x\n", val_list=None)


def test_a_changed_picture_is_another_version_of_its_video(tmp_path, pictures) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pictures[number])
    before = VIDEO_FILES.identify(str(tmp_path))
    cv2.imwrite(str(tmp_path / "1.png"), pictures[40])
    assert VIDEO_FILES.identify(str(tmp_path)) != before
