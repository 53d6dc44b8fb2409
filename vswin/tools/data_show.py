"""Shows what training makes of its clips; called by `vswin data show`.

The clips are the first batch of a run with the same seed, with the number of clips shown as its batch size. All draws
are the same as in that run, including the draws of the training step.
"""

import math
from operator import methodcaller
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vswin.config.schema import DataShowConfig
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.contact_sheet import Panel, draw_sheet, outline, save_sheets, thumbnail
from vswin.data.frames import FrameLoader, open_frames
from vswin.data.order import Order, batch_indices, clip_generator
from vswin.data.samples import name_labels
from vswin.data.views import TrainClip, load_train_clip
from vswin.errors import DecodeError, InputError
from vswin.models.video_swin import MEAN, STD, Normalize
from vswin.runtime import logger, start_log
from vswin.training.mixing import MixDraws, Mixing, erase, keep_uncounted, make_erasing_boxes, make_mix_draws, mix_clips

_SUFFIXES = (".png", ".gif", ".mp4")
_MOST_COLUMNS = 8
_SHEET_HEIGHT, _FILM_HEIGHT = 112, 160  # of a frame, in pixels
_FRAMES_PER_SEC = 10.0


class Slot(NamedTuple):
    """One slot of the batch: title, clip, the whole frames it comes from and their times; or why there is no clip."""

    title: str
    clip: TrainClip | None = None
    frames: np.ndarray | None = None  # uint8 [T, H, W, 3]
    times: np.ndarray | None = None  # seconds from the start of the video, float64 [T]; NaN if unknown
    problem: str = ""


class Step(NamedTuple):
    """A batch as the model sees it, scaled back to bytes."""

    clips: np.ndarray  # uint8 [B, T, H, W, 3]
    erased: np.ndarray  # box of each clip (top, left, height, width), int [B, 4]
    mixing: MixDraws


def run_show(config: DataShowConfig) -> None:
    """Writes a contact sheet or a film of training clips, each beside the whole frames from which it is cut."""
    start_log(None)
    path = Path(config.output)
    if path.suffix not in _SUFFIXES:
        raise InputError(f"output={config.output}: the name must end in {', '.join(_SUFFIXES)}")
    # Pairs and repeats must be complete; a run checks its batch size in the same way.
    augment = config.augment
    unit = math.lcm(2 if augment.mixup > 0 or augment.cutmix > 0 else 1, augment.repeats)
    if config.num_clips % unit:
        above = -(-config.num_clips // unit) * unit
        raise InputError(
            f"num_clips={config.num_clips}: a multiple of {unit}, e.g. {above}, as mixing takes pairs and "
            "augment.repeats several clips of a video"
        )
    catalog = load_catalog(config.dataset)
    if not catalog.train:
        raise InputError("there are no training clips to show: dataset.train_list is null; give the training list")
    slots = _fill_slots(config, catalog)
    step = take_step(config, slots)
    if path.suffix == ".png":
        columns = np.linspace(0, config.clip.num_frames - 1, min(config.clip.num_frames, _MOST_COLUMNS))
        numbers_of_sheets = [columns.round().astype(int).tolist()]
        whole, clip = "first row", "second row"
    else:
        numbers_of_sheets = [[number] for number in range(config.clip.num_frames)]
        whole, clip = "left", "right"
    legend = Panel(f"{whole}: the frames and what is cut out of them; {clip}: what the model sees", [], [])
    sheets = [
        draw_sheet([legend, *(_panel(slot, step, i, numbers, path.suffix) for i, slot in enumerate(slots))])
        for numbers in numbers_of_sheets
    ]
    save_sheets(sheets, path, _FRAMES_PER_SEC)
    logger.info(f"{path}: {len(slots)} training clips, each beside the frames it comes from")


def take_step(config: DataShowConfig, slots: list[Slot]) -> Step:
    """Changes the clips in the first slots of a batch as the training step does; the other slots are padding."""
    augment, size, batch_size = config.augment, config.clip.crop, config.num_clips
    pixels = np.zeros((batch_size, config.clip.num_frames, size, size, 3), np.uint8)
    weights = np.zeros(batch_size, np.float32)
    for position, slot in enumerate(slots):
        if slot.clip is not None:
            pixels[position] = slot.clip.pixels
            weights[position] = 1
    where = (config.seed, 0, tf.range(batch_size), batch_size, (size, size))
    erased = make_erasing_boxes(*where, augment.erasing)
    mixing = Mixing(augment.mixup, augment.cutmix)
    draws = make_mix_draws(*where, mixing)
    clips = erase(Normalize(dtype="float32")(tf.constant(pixels)), erased)
    if mixing.is_on:
        draws = keep_uncounted(draws, tf.constant(weights))
        clips = mix_clips(clips, draws)
    levels = np.round(clips.numpy() * np.array(STD, np.float32) + np.array(MEAN, np.float32))
    return Step(
        np.clip(levels, 0, 255).astype(np.uint8), erased.numpy(), MixDraws(*(values.numpy() for values in draws))
    )


def _fill_slots(config: DataShowConfig, catalog: Catalog) -> list[Slot]:
    order = Order(config.seed, config.num_clips, 1, repeats=config.augment.repeats, balance=config.augment.balance)
    indices = batch_indices(catalog.train, order, 0, 0)
    samples = [catalog.train[index] for index in indices if index >= 0]
    loader = open_frames(config.dataset, config.clip.resize, samples, catalog.store)
    numbers = [indices[:position].count(index) for position, index in enumerate(indices)]
    return [_fill_slot(config, catalog, loader, *slot) for slot in zip(indices, numbers, strict=True)]


def _fill_slot(config: DataShowConfig, catalog: Catalog, loader: FrameLoader, index: int, number: int) -> Slot:
    if index < 0:
        return Slot("no clip: there are fewer videos")
    rng = clip_generator(config.seed, 0, index, number)
    sample = catalog.train[index]
    path, numbers = sample.path, ", ".join(map(str, sample.labels))
    names = name_labels(sample.labels, catalog.class_names)
    title = f"{Path(path).parent.name}/{Path(path).name}{sample.part}   class {numbers}: {names}"
    try:
        # The first call cuts the frames while it decodes, as in training; the second loads them whole.
        clip = load_train_clip(path, config.clip, config.augment, config.dataset.allow_flip, rng, loader, sample.part)
        frames = loader.load(path, config.clip.resize, lambda _: clip.numbers, sample.part)
        times = loader.run(path, config.clip.resize, methodcaller("read_times"), sample.part)
        return Slot(title, clip, frames, times[clip.numbers])
    except DecodeError as error:
        return Slot(title, problem=f"cannot be decoded: {error.reason}")


def _panel(slot: Slot, step: Step, position: int, numbers: list[int], suffix: str) -> Panel:
    """Draws some frames of a clip: the whole frames with the crop outlined, and what the model sees."""
    caption = _caption(slot, step, position)
    if slot.clip is None or slot.frames is None:
        return Panel(*caption, [])
    height = _SHEET_HEIGHT if suffix == ".png" else _FILM_HEIGHT
    whole = [thumbnail(outline(slot.frames[number], *slot.clip.box), height) for number in numbers]
    seen = [thumbnail(step.clips[position, number], height) for number in numbers]
    return Panel(*caption, [whole, seen] if suffix == ".png" else [whole + seen])


def _caption(slot: Slot, step: Step, position: int) -> tuple[str, list[str]]:
    """Returns the title, and lines about the draws on the host and in the training step."""
    title, clip, frames, times, problem = slot
    title = f"{position + 1}   {title}"
    if clip is None or frames is None or times is None:
        return title, [problem] if problem else []
    height, width = frames.shape[1:3]
    _, numbers, box, changes = clip
    seconds = "" if np.isnan(times[0]) else f" ({times[0]:.2f} to {times[-1]:.2f} s)"
    texts = [f"frames {numbers[0]} to {numbers[-1]}{seconds}"]
    texts.append(f"crop {box.width} x {box.height} of {width} x {height} at x {box.left}, y {box.top}")
    texts += changes
    in_step = []
    top, left, height, width = step.erased[position].tolist()
    if height > 0:
        in_step.append(f"erased {width} x {height} at x {left}, y {top}")
    share = float(step.mixing.share[position])
    top, left, height, width = step.mixing.box[position].tolist()
    if share < 1 or height * width > 0:
        kind = f"cutmix {width} x {height} at x {left}, y {top}" if step.mixing.blend[position] == 1 else "mixup"
        in_step.append(f"{kind} with clip {(position ^ 1) + 1}, labels {share:.2f} + {1 - share:.2f}")
    return title, ["; ".join(texts)] + (["in the training step: " + "; ".join(in_step)] if in_step else [])
