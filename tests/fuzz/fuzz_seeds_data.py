"""Sound lists, data sets, videos and settings to damage. An input maps names to contents."""

import csv
import hashlib
import io
import json
import os
import struct
import tempfile
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
from fuzz_seeds_weights import Files, written

from vswin.config.load import CONFIG_DIR


def lists() -> list[Files]:
    """Makes lists of paths and labels, in all forms."""
    texts = (
        "a/1.avi 0\nb/2.avi 1\na/3.avi 0\nb/4.avi 1\n",
        "# ours\r\na/1.avi walk\r\nb/2.avi run\r\na/3.avi walk\r\nb/4.avi run\r\n",
        'path,label\n"a/1.avi",walk\nb/2.avi,"run, fast"\na/3.avi,walk\nb/4.avi,"run, fast"\n',
        "a/1.avi,0\nb/2.avi,1\na/3.avi,0\nb/4.avi,1\n",
        ",label;video_path;group\n0;walk;a/1.avi;g\n1;run;b/2.avi;h\n2;run;b/4.avi;g\n3;walk;a/3.avi;h\n".replace(
            ",", ";"
        ),
        'a/1.avi\t9\trun fast\n"a/3.avi"\t9\trun fast\n./b/2.avi\t9\tw\nb/2.avi\t8\tw\n',
        "\ufeffpath\tclass\r\na/1.avi\trun\r\nb/2.avi\tw\r\n",
        "a/1.avi 9 0\n'a/3.avi' 9 0\nb/2.avi 9 1\nb/4.avi 9 1\n",
    )
    names = ("list.txt", "list.csv")
    return [
        {names[1 - number % 2]: text.encode("utf-16-le" if text.startswith("\ufeff") else "utf-8")}
        for number, text in enumerate(texts)
    ]


def ucf101() -> list[Files]:
    """Makes official lists of UCF101, with and without labels, and its class indices."""
    names = ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    videos = [f"{name}/v_{name}_g0{group}_c01.avi" for name in names for group in (1, 2)]
    numbered = [f"{video} {1 + number // 2}\n" for number, video in enumerate(videos)]
    return [
        {"list.txt": "".join(numbered).encode()},
        {"list.txt": "".join(f"{video}\n" for video in videos).encode()},
        {"list.txt": "".join(numbered).encode(), "classInd.txt": _numbering()},
    ]


def _numbering() -> bytes:
    from vswin.data.class_names import read_class_names

    names = read_class_names("ucf101")
    return "".join(f"{number} {name}\n" for number, name in enumerate(names, start=1)).encode()


def hmdb51() -> list[Files]:
    """Makes an official list of HMDB51."""
    lines = "".join(
        f"{name}_brush_hair_{name}.avi {use} \n" for name, use in (("a", 1), ("b #2;", 1), ("c", 2), ("d", 0))
    )
    return [{"brush_hair_test_split1.txt": lines.encode()}]


def kinetics() -> list[Files]:
    """Makes official lists of Kinetics as CSV and JSON."""
    rows = [("abseiling", "0aaaaaaaaaa", "1", "11", "train"), ("air drumming", "0bbbbbbbbbb", "20", "30", "train")]
    rows += [("abseiling", "0cccccccccc", "3", "13", "train"), ("air drumming", "0dddddddddd", "4.0", "14.0", "train")]
    text = io.StringIO()
    csv.writer(text).writerows([("label", "youtube_id", "time_start", "time_end", "split"), *rows])
    videos = {
        row[1]: {"annotations": {"label": row[0], "segment": [float(row[2]), float(row[3])]}, "subset": row[4]}
        for row in rows
    }
    return [{"list.csv": content.encode()} for content in (text.getvalue(), json.dumps(videos))]


def sthv2() -> list[Files]:
    """Makes official lists of Something-Something v2 and its class indices."""
    names = ("Approaching something with your camera", "Attaching something to something")
    videos = [
        {"id": str(number), "label": "x", "template": names[number % 2].replace("something", "[something]")}
        for number in range(4)
    ]
    content = json.dumps(videos, indent=1).encode()
    from vswin.data.class_names import read_class_names

    numbers = {name: str(number) for number, name in enumerate(read_class_names("sthv2"))}
    return [{"train.json": content}, {"train.json": content, "labels.json": json.dumps(numbers).encode()}]


def tfrecord(records: list[bytes]) -> bytes:
    """Writes records with zero checksums, which are not compared when a video is read."""
    return b"".join(struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records)


@cache
def packed() -> list[Files]:
    """Makes a packed data set of four videos, also in TFRecord files as packing once wrote."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from vswin.config.compose import compose_config
    from vswin.config.schema import DataPrepareConfig
    from vswin.data.prepare import run_prepare

    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            Path(folder, "videos", "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Path(folder, "videos", "ab"[number % 2], f"{number}.avi").write_bytes(bytes([number]) * 20)
        output = Path(folder, "packed")
        overrides = ["dataset=folder", f"dataset.root={folder}/videos", "dataset.val_fraction=0.3"]
        overrides += [f"output_dir={output}", "shards=1", "short_side=null"]
        run_prepare(compose_config("data_prepare", overrides, DataPrepareConfig))
        made = {path.name: path.read_bytes() for path in output.iterdir()}
        earlier = {}
        for path in output.iterdir():
            content = path.read_bytes()
            if "-of-" in path.name:
                records = ArrayRecordDataSource([str(path)])
                content = tfrecord([records[number] for number in range(len(records))])
            renamed = path.name.replace("array_record", "tfrecord")
            earlier[renamed] = content.replace(b'"array_record"', b'"tfrecord"').replace(b'"format": 2', b'"format": 1')
    return [made, earlier]


def with_hash(files: Files) -> Files:
    """Updates the hash of a damaged list in the description, as an attacker would."""
    digest = hashlib.sha256(files["videos.csv"]).hexdigest().encode()
    try:
        description = json.loads(files["vswin.json"])
        description["videos_sha256"] = digest.decode()
        return {**files, "vswin.json": json.dumps(description).encode()}
    except (ValueError, TypeError, RecursionError):
        return files


@cache
def tfds() -> list[Files]:
    """Makes a data set of two videos, as TFDS prepares it."""
    import tensorflow as tf
    import tensorflow_datasets

    features = tensorflow_datasets.features.FeaturesDict(
        {
            "video": tensorflow_datasets.features.Video((None, 8, 8, 3)),
            "label": tensorflow_datasets.features.ClassLabel(names=["a", "b"]),
        }
    )
    clips = tf.data.Dataset.from_tensor_slices({"video": np.zeros((2, 2, 8, 8, 3), np.uint8), "label": [0, 1]})
    with tempfile.TemporaryDirectory() as folder:
        tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
            name="a",
            version="1.0.0",
            features=features,
            split_datasets={"train": clips, "test": clips},
            data_dir=folder,
        )
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [{str(path.relative_to(folder)): path.read_bytes() for path in paths}]


@cache
def run_configs() -> list[Files]:
    """Makes the configurations of two training runs."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore

    from vswin.config.load import load_config, save_config
    from vswin.config.schema import TrainConfig

    ConfigStore.instance().store("train_schema", TrainConfig)
    found = []
    for overrides in (["seed=3"], ["model=swin_base", "dataset=ucf101", "model.freeze=[backbone.*]"]):
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = load_config(compose("train", overrides), TrainConfig)
        found.append({"config.yaml": written(lambda path, config=config: save_config(config, path), "config.yaml")})
    return found


def command_lines() -> list[Files]:
    """Makes overrides, one per line."""
    lines = (
        "dataset=folder\ndataset.root=my/videos\nclip=16x4\nclip.crop=112",
        "dataset=ucf101\ndataset.split=2\ndataset.crop_area=[0.1,0.5]\n++dataset.decoder=pyav",
        "dataset.train_list='a b.csv'\ndataset.val_fraction=0.3\ndataset.num_classes=null",
    )
    return [{"overrides.txt": text.encode()} for text in lines]


def results() -> list[Files]:
    """Makes a table of results with two rows."""
    row = {
        **{"num_frames": 32, "frame_stride": 2, "crop": 224, "num_clips": 4, "num_crops": 3, "sampling": "dense"},
        **{"spacing": "centred", "average": "prob", "weights": {"init_from": "a"}, "date": "2026-11-25T12:00:00+00:00"},
        "dataset": {"name": "folder", "split": None, "num_missing": 0},
        **{"num_videos": 10, "num_bad_videos": 0, "clip_top1": 0.5, "note": ""},
        "no_official": "a is not the name of a published model",
        "top1": {"measured": 0.5, "interval": [0.2, 0.8]},
        "top5": {"measured": 0.9, "interval": [0.7, 1.0], "official": 0.9, "hub_page": 0.8},
    }
    row["top5"] |= {"difference_points": 0.0, "verdict": "within"}
    return [{"results.json": json.dumps([row, row], indent=1).encode()}]


@cache
def videos() -> list[Files]:
    """Makes videos of eight frames in several containers and codecs."""
    found = []
    for name, codec, pixels in (
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx", "yuv420p"),
    ):
        found.append({name: written(lambda path, c=codec, p=pixels: _encode(path, c, p), name)})
    return found


def _encode(path: Path, codec: str, pixels: str) -> None:
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
        stream.thread_count = 1
        for number in range(8):
            image = cv2.resize(np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8), (48, 32))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
