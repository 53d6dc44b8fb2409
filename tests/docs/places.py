"""What the documents assume besides the code: videos, and data sets as their owners publish them."""

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from documents import ROOT

CLIPS = ROOT / "tests" / "clips"
_CODECS = {".avi": "MJPG", ".mp4": "mp4v", ".webm": "VP90"}
_NUM_FRAMES, _SIZE, _RATE = 40, (96, 72), 25


def make_own_videos(folder: Path) -> None:
    """Makes `my/videos` with a folder per class, lists of them, `new/videos`, and real videos."""
    for name in ("jump.mp4", "video.mp4"):
        shutil.copy(CLIPS / "demo.mp4", folder / name)
    write_video(folder / "new/videos/new.mp4")
    names = [f"{label}/{label}{number}.mp4" for label in ("high jump", "run") for number in range(3)]
    for name in names:
        write_video(folder / "my/videos" / name)
    rows = [(name, name.partition("/")[0]) for name in names]
    _write_csv(folder / "train.csv", ("path", "label"), rows[1:])
    _write_csv(folder / "val.csv", ("path", "label"), rows[:1])


def make_ucf101(folder: Path) -> None:
    """Makes two classes of nine groups; each of the three splits holds out one group per class."""
    classes = _class_names("ucf101")
    numbered, groups = list(enumerate(classes[:2], 1)), range(1, 10)
    for _, name in numbered:
        for group in groups:
            write_video(folder / "videos" / _ucf101_name(name, group))
    lists = folder / "splits"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(classes, 1)))
    for split in (1, 2, 3):
        others = [group for group in groups if group != split]
        train = [f"{_ucf101_name(name, group)} {number}\n" for number, name in numbered for group in others]
        test = [f"{_ucf101_name(name, split)}\n" for _, name in numbered]
        (lists / f"trainlist0{split}.txt").write_text("".join(train))
        (lists / f"testlist0{split}.txt").write_text("".join(test))


def make_kinetics(folder: Path) -> None:
    """Makes two training videos and one validation video of two classes."""
    for role, ids in (("train", ("a", "b")), ("val", ("c",))):
        rows = []
        for label in ("abseiling", "high jump"):
            for video in (f"{label[:4]}{letter}00000{letter}" for letter in ids):
                write_video(folder / role / label / f"{video}_000010_000020.mp4")
                rows.append((label, video, 10, 20, role))
        columns = ("label", "youtube_id", "time_start", "time_end", "split")
        _write_csv(folder / "annotations" / f"{role}.csv", columns, rows)


def make_sthv2(folder: Path) -> None:
    """Makes two training videos and one validation video of two classes."""
    classes = _class_names("sthv2")
    labels = folder / "labels"
    labels.mkdir(parents=True)
    (labels / "labels.json").write_text(json.dumps({name: str(number) for number, name in enumerate(classes)}))
    for role, numbers in (("train", range(4)), ("validation", range(4, 6))):
        videos = [{"id": str(number), "template": classes[number % 2]} for number in numbers]
        (labels / f"{role}.json").write_text(json.dumps(videos))
        for number in numbers:
            write_video(folder / f"{number}.webm")


def make_exports(folder: Path) -> None:
    """Makes exports of annotation tools, of Label Studio and in the form of ActivityNet."""
    timeline = {"ranges": [{"start": 1, "end": 20}], "timelinelabels": ["serve"]}
    result = {"type": "timelinelabels", "value": timeline, "from_name": "action", "to_name": "video"}
    task = {"id": 1, "data": {"video": "/data/upload/1/match.mp4"}, "annotations": [{"result": [result]}]}
    (folder / "label_studio.json").write_text(json.dumps([task]))
    video = {"subset": "training", "annotations": [{"segment": [0.4, 1.2], "label": "serve"}]}
    (folder / "export.json").write_text(json.dumps({"database": {"match": video}}))


def write_video(path: Path) -> None:
    """Writes a few small frames of a real scene; the name decides which ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODECS[path.suffix]), _RATE, _SIZE)
    assert writer.isOpened(), path
    start = sum(path.name.encode()) * 7 % 200
    for frame in _read_scene()[start : start + _NUM_FRAMES]:
        writer.write(frame)
    writer.release()


@cache
def _read_scene() -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(CLIPS / "demo.mp4"), cv2.CAP_FFMPEG)
    return [cv2.resize(capture.read()[1], _SIZE) for _ in range(200 + _NUM_FRAMES)]


def _class_names(dataset: str) -> list[str]:
    return (ROOT / "data" / dataset / "classes.txt").read_text().splitlines()


def _ucf101_name(label: str, group: int) -> str:
    return f"{label}/v_{label}_g{group:02d}_c01.avi"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
