"""Write annotated copies of videos: `vswin predict --save FOLDER`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.text import Text

from vswin.atomic import check_outputs, replacing
from vswin.console import make_progress_bar, printable
from vswin.data.decode import FrameReader
from vswin.data.pyav_encoder import USUAL_RATE, encode_video
from vswin.errors import DecodeError, InputError
from vswin.inference.annotate import Annotator, make_timeline
from vswin.inference.inputs import Input
from vswin.inference.model import Classifier, LoadedModel
from vswin.runtime import console, logger


def name_outputs(
    inputs: Sequence[Input], folder: Path, is_overwriting: bool, option: str = "--save"
) -> dict[str, Path]:
    """Names the film of each video: `folder` and the name of the video, with the ending `.mp4`; video path -> film.

    If two films would have the same name, the later one keeps its own ending as well, and gets a number if needed.
    `option` is the option that named the folder, for errors.

    Raises:
        InputError: if a film would replace one of the videos, or a file although not `is_overwriting`.
    """
    targets: dict[str, Path] = {}
    taken: set[Path] = set()
    for entry in inputs:
        name = folder / entry.name
        target = name.with_suffix(".mp4")
        number = 1
        while target in taken:
            suffix = f"_{number}" if number > 1 else ""
            target = name.with_name(f"{name.name}{suffix}.mp4")
            number += 1
        taken.add(target)
        targets[entry.path] = target
    videos = {Path(entry.path).resolve() for entry in inputs}
    for target in taken:
        if target.resolve() in videos:
            raise InputError(f"{option} {folder}: {target} is one of the videos to read; name another folder")
    check_outputs(sorted(taken), is_overwriting)
    return targets


def save_annotated(loaded: LoadedModel, targets: Mapping[str, Path]) -> int:
    """Writes annotated copies, `targets` by video path; returns how many videos failed to decode and were left out."""
    if not targets:
        return 0
    num_left_out = 0
    classify = Classifier(loaded)
    clip = loaded.protocol.config.clip
    if clip.sampling == "segments":
        logger.info(f"what is shown at each moment comes from clips of {clip.num_frames} frames around it")
    with make_progress_bar(console, "") as bar:
        for number, (path, target) in enumerate(targets.items(), start=1):
            name = escape(printable(target.name))
            task = bar.add_task(f"{number} of {len(targets)}: {name}", total=None, note="clips")
            try:
                # No time limit: the configured one is for a clip, but this reads the whole video twice.
                with loaded.store.open(path, loaded.protocol.config.dataset.decoder) as reader:
                    num_clips = _save(loaded, classify, reader, target, partial(bar.update, task))
            except DecodeError as error:
                num_left_out += 1
                console.print(Text(f"{printable(str(target))} is left out: {printable(error.reason)}", style="red"))
            else:
                note = "" if num_clips > 1 else ", which shows the same throughout: the video is no longer than a clip"
                console.print(Text(f"saved {printable(str(target))}{note}"))
            bar.remove_task(task)
    return num_left_out


def _save(
    loaded: LoadedModel, classify: Classifier, reader: FrameReader, target: Path, show: Callable[..., None]
) -> int:
    """Writes the copy of a video with its size, rate and frame count, without sound; returns the number of clips."""

    def on_clips(done: int, total: int) -> None:
        show(completed=done, total=total)

    timeline = make_timeline(reader, loaded.protocol.config.clip, classify, on_clips)
    num_frames = reader.num_video_frames
    reader.read(np.array([num_frames - 1]), _whole)
    numbers = np.delete(np.arange(num_frames), reader.repeats)
    height, width = reader.frame_size
    annotator = Annotator(timeline, loaded.class_names, num_frames, height, width)

    def draw() -> Iterator[np.ndarray]:
        # Frame by frame, as 4K frames are large.
        for number in numbers.tolist():
            show(completed=number, total=num_frames, note="frames")
            yield annotator.draw(reader.read(np.array([number]), _whole)[0], number)  # [H, W, 3]

    with replacing(target) as unfinished:
        rate = reader.frame_rate or USUAL_RATE
        size, times = (width, height), reader.read_times()[numbers]
        encode_video(str(unfinished), draw(), size, rate, preset="veryfast", num_threads=0, times=times)
    return len(timeline.centres)


def _whole(frame: np.ndarray) -> np.ndarray:
    return frame
