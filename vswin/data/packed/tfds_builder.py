"""The packed data set as TFDS knows it: its builder, by which Beam makes it, and the files that describe it.

Imports TensorFlow, so it is imported where it is used.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from vswin.data.decode_error import DecodeError
from vswin.data.packed.contents import TFDS_NAME, TFDS_VERSION
from vswin.data.packed.plan import Entry
from vswin.data.pyav_encoder import shrink_video
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.errors import InputError

_ABOUT = "Videos of an action recognition data set as encoded files, packed by vswin; videos.csv has a row for each."

Example = dict[str, Any]


def make_features(class_names: Sequence[str]) -> tfds.features.FeaturesDict:
    """Describes a record: the encoded file, its name, its class and its place in the list."""
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Tensor(shape=(), dtype=tf.string),
            "path": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "number": tfds.features.Scalar(dtype=tf.int64),
        }
    )


def make_example(entry: Entry, short_side: int | None, store: VideoStore = VIDEO_FILES) -> tuple[str, Example]:
    """Reads a video, and re-encodes it if it is larger than wanted.

    One that cannot be decoded stays as it is: training and evaluation then report it as they would the file.

    Args:
        entry: The video.
        short_side: Pixels of the shorter side of larger videos; None leaves all as they are.
        store: Decodes it.

    Returns:
        A key of its own and the features.
    """
    content = None
    if short_side is not None:
        try:
            content = shrink_video(entry.file, short_side, store)
        except DecodeError:
            content = None
    if content is None:
        content = Path(entry.file).read_bytes()
    features = {"video": content, "path": os.fsencode(entry.name), "label": entry.label, "number": entry.number}
    return f"{entry.number:09d} {os.fsencode(entry.name).hex()}", features


class PackedVideos(tfds.core.GeneratorBasedBuilder):
    """Packs videos as `vswin data prepare` does, by TFDS itself: in one go, or on the workers of Beam."""

    name = TFDS_NAME
    VERSION = tfds.core.Version(TFDS_VERSION)

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        entries: dict[str, list[Entry]],
        short_side: int | None,
        by_beam: bool,
        **options: Any,
    ) -> None:
        """Takes what is to be packed.

        Args:
            class_names: Name of each class index.
            entries: The videos of each split.
            short_side: See `make_example`.
            by_beam: Whether Beam makes the examples.
            options: For TFDS, e.g. `data_dir`.
        """
        self._class_names = class_names
        self._entries = entries
        self._short_side = short_side
        self._by_beam = by_beam
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, description=_ABOUT, features=make_features(self._class_names))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(entries) for split, entries in self._entries.items()}

    def _generate_examples(self, entries: Sequence[Entry]) -> Any:
        make = functools.partial(make_example, short_side=self._short_side)
        if not self._by_beam:
            return map(make, entries)
        beam = import_beam()
        # Each element is small; the workers read the files.
        return beam.Create(list(entries)) | beam.Reshuffle() | beam.Map(make)


def pack_by_beam(builder: PackedVideos, folder: Path, file_format: str, num_shards: int, options: list[str]) -> None:
    """Packs by Beam, and puts the files TFDS made into a folder.

    Args:
        builder: What to pack; its `data_dir` lies on the file system of `folder`.
        folder: Where the files go.
        file_format: "array_record" or "tfrecord".
        num_shards: Files of each split.
        options: For Beam, e.g. `["--runner=FlinkRunner"]`; empty runs here.

    Raises:
        InputError: If Beam is not installed, or knows no such option.
    """
    pipeline_options = import_beam().options.pipeline_options.PipelineOptions(options)
    builder.download_and_prepare(
        file_format=file_format,
        download_config=tfds.download.DownloadConfig(
            beam_options=pipeline_options, num_shards=num_shards, compute_stats=tfds.download.ComputeStatsMode.SKIP
        ),
    )
    for file in Path(builder.data_dir).iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(Path(builder.data_dir).parent)


def import_beam() -> Any:
    """Imports Apache Beam.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import apache_beam
        import apache_beam.options.pipeline_options
    except ImportError as error:
        raise InputError(
            f"beam: Apache Beam cannot be imported ({error}); `pip install apache-beam`, or leave beam=null, which "
            "packs with the cores of this machine"
        ) from error
    return apache_beam


def serialize(examples: Iterator[tuple[str, Example]], class_names: Sequence[str]) -> Iterator[bytes]:
    """Turns features into records, as TFDS does."""
    features = make_features(class_names)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    for _, example in examples:
        yield serializer.serialize_example(features.encode_example(example))


def write_tfds_metadata(
    folder: Path, class_names: Sequence[str], file_format: str, shard_lengths: dict[str, list[int]]
) -> None:
    """Writes what `tfds.builder_from_directory` reads: `dataset_info.json`, `features.json`, the labels.

    Args:
        folder: Holds the files of records.
        class_names: Name of each class index.
        file_format: "array_record" or "tfrecord".
        shard_lengths: Records in each file of each split.
    """
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=TFDS_NAME, filetype_suffix=file_format)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=lengths,
            num_bytes=sum(path.stat().st_size for path in folder.glob(f"{TFDS_NAME}-{split}.*")),
            filename_template=template.replace(split=split),
        )
        for split, lengths in shard_lengths.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=make_features(class_names),
        split_infos=splits,
        version=TFDS_VERSION,
        description=_ABOUT,
        check_data=False,
    )
