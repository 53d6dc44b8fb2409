"""Show what training makes of its clips; called by `vswin data show`.

The clips are those of the first batch of a run with the same seed, whose batch size is the number of clips shown,
and so are all draws, those of the training step included.
"""

import copy
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vswin.data.catalog import Catalog, load_catalog
from vswin.data.decode_error import DecodeError
from vswin.data.frames import FrameLoader, open_frames
from vswin.data.order import Order, batch_indices, clip_generator
from vswin.data.views import TrainClip, draw_train_clip, load_train_clip
from vswin.errors import InputError
from vswin.models.video_swin import MEAN, STD, Normalize
from vswin.report.contact_sheet import Panel, draw_sheet, outline, save_sheets, thumbnail
from vswin.runtime import logger, start_log
from vswin.schema import DataShowConfig
from vswin.training.mixing import MixDraws, Mixing, erase, keep_uncounted, make_erasing_boxes, make_mix_draws, mix_clips

_SUFFIXES = (".png", ".gif", ".mp4")
_MOST_COLUMNS = 8
_SHEET_HEIGHT, _FILM_HEIGHT = 112, 160  # of a frame, in pixels
_FRAMES_PER_SEC = 10.0


class Slot(NamedTuple):
    """Hold one slot of the batch.

    Attributes:
        title: Names the video and its class.
        drawn: Its frames and draws; None for a video that cannot be decoded.
        pixels: Its clip, uint8 [T, H, W, 3].
        problem: Says why it cannot, or nothing.
    """

    title: str
    drawn: TrainClip | None
    pixels: np.ndarray | None = None
    problem: str = ""


class Step(NamedTuple):
    """Hold a batch as the model sees it, back on the scale of bytes.

    Attributes:
        clips: uint8 [B, T, H, W, 3].
        erased: Box of each clip (top, left, height, width), int [B, 4].
        mixing: How they are mixed.
    """

    clips: np.ndarray
    erased: np.ndarray
    mixing: MixDraws


def run_show(config: DataShowConfig) -> None:
    """Writes a contact sheet or a film of training clips, each beside the whole frames it comes from.

    Args:
        config: What to show, checked.

    Raises:
        InputError: If there is nothing to show, or the number of clips or the name of the file does not do.
    """
    start_log(None)
    path = Path(config.output)
    if path.suffix not in _SUFFIXES:
        raise InputError(f"output={config.output}: the name must end in {', '.join(_SUFFIXES)}")
    _check_number(config)
    catalog = load_catalog(config.dataset)
    if not catalog.train:
        raise InputError("there are no training clips to show: dataset.train_list is null; give the training list")
    slots = _fill_slots(config, catalog)
    step = take_step(config, slots)
    if path.suffix == ".png":
        num_columns = min(config.clip.num_frames, _MOST_COLUMNS)
        columns = np.linspace(0, config.clip.num_frames - 1, num_columns).round().astype(int).tolist()
        legend = Panel("first row: the frames and what is cut out of them; second row: what the model sees", [], [])
        sheets = [draw_sheet([legend, *(_sheet_panel(slots, step, place, columns) for place in range(len(slots)))])]
    else:
        legend = Panel("left: the frames and what is cut out of them; right: what the model sees", [], [])
        sheets = [
            draw_sheet([legend, *(_film_panel(slots, step, place, number) for place in range(len(slots)))])
            for number in range(config.clip.num_frames)
        ]
    save_sheets(sheets, path, _FRAMES_PER_SEC)
    logger.info(f"{path}: {len(slots)} training clips, each beside the frames it comes from")


def take_step(config: DataShowConfig, slots: list[Slot]) -> Step:
    """Does to clips what the host and the training step do.

    Args:
        config: What to show.
        slots: The first slots of a batch; the rest of it is padding.

    Returns:
        The clips of these slots.
    """
    augment, size, batch_size = config.augment, config.clip.crop, config.num_clips
    pixels = np.zeros((batch_size, config.clip.num_frames, size, size, 3), np.uint8)
    weights = np.zeros(batch_size, np.float32)
    for place, slot in enumerate(slots):
        if slot.pixels is not None:
            pixels[place] = slot.pixels
            weights[place] = 1
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


def _check_number(config: DataShowConfig) -> None:
    """Checks that pairs and repeats are whole; a run asks the same of its batch size."""
    augment = config.augment
    unit = math.lcm(2 if augment.mixup > 0 or augment.cutmix > 0 else 1, augment.repeats)
    if config.num_clips % unit:
        above = -(-config.num_clips // unit) * unit
        raise InputError(
            f"num_clips={config.num_clips}: a multiple of {unit}, e.g. {above}, as mixing takes pairs and "
            "augment.repeats several clips of a video"
        )


def _fill_slots(config: DataShowConfig, catalog: Catalog) -> list[Slot]:
    repeats = config.augment.repeats
    order = Order(config.seed, config.num_clips, 1, repeats=repeats)
    indices = batch_indices(len(catalog.train), order, 0, 0)
    paths = [catalog.train[index].path for index in indices if index >= 0]
    loader = open_frames(config.dataset, config.clip.resize, paths, catalog.store)
    slots = []
    for place, index in enumerate(indices):
        if index < 0:
            slots.append(Slot("no clip: there are fewer videos", None))
            continue
        rng = clip_generator(config.seed, 0, index, place * repeats // config.num_clips)
        slots.append(_fill_slot(config, catalog, index, loader, rng))
    return slots


def _fill_slot(
    config: DataShowConfig, catalog: Catalog, index: int, loader: FrameLoader, rng: np.random.Generator
) -> Slot:
    path, label = catalog.train[index]
    title = f"{Path(path).parent.name}/{Path(path).name}   class {label}: {catalog.class_names[label]}"
    try:
        # One decodes for the eye what the other, as in training, cuts out while it decodes: the draws are the same.
        how = (path, config.clip, config.augment, config.dataset.allow_flip)
        pixels = load_train_clip(*how, copy.deepcopy(rng), loader)
        return Slot(title, draw_train_clip(*how, rng, loader), pixels)
    except DecodeError as error:
        return Slot(title, None, problem=f"cannot be decoded: {error.reason}")


def _sheet_panel(slots: list[Slot], step: Step, place: int, columns: list[int]) -> Panel:
    return Panel(*_caption(slots, step, place), _images(slots[place], step, place, columns, _SHEET_HEIGHT))


def _film_panel(slots: list[Slot], step: Step, place: int, number: int) -> Panel:
    rows = _images(slots[place], step, place, [number], _FILM_HEIGHT)
    return Panel(*_caption(slots, step, place), [[image for row in rows for image in row]])


def _images(slot: Slot, step: Step, place: int, numbers: list[int], height: int) -> list[list[np.ndarray]]:
    """Returns the whole frames with the crop's edges, and what the model sees, for some frames of a clip."""
    if slot.drawn is None:
        return []
    changed = [thumbnail(step.clips[place, number], height) for number in numbers]
    box = slot.drawn.changes.box
    whole = [thumbnail(outline(slot.drawn.frames[number], *box), height) for number in numbers]
    return [whole, changed]


def _caption(slots: list[Slot], step: Step, place: int) -> tuple[str, list[str]]:
    """Returns title and lines: what was drawn on the host, and in the training step."""
    title, drawn, _, problem = slots[place]
    title = f"{place + 1}   {title}"
    if drawn is None:
        return title, [problem] if problem else []
    height, width = drawn.frames.shape[1:3]
    box, is_flipped, operations = drawn.changes
    texts = [f"frames {drawn.numbers[0]} to {drawn.numbers[-1]}"]
    texts.append(f"crop {box.width} x {box.height} of {width} x {height} at x {box.left}, y {box.top}")
    texts += ["mirrored"] if is_flipped else []
    texts += [operation.text for operation in operations]
    in_step = _describe_erasing(step, place) + _describe_mixing(slots, step, place)
    return title, ["; ".join(texts)] + (["in the training step: " + "; ".join(in_step)] if in_step else [])


def _describe_erasing(step: Step, place: int) -> list[str]:
    top, left, height, width = step.erased[place].tolist()
    return [f"erased {width} x {height} at x {left}, y {top}"] if height > 0 else []


def _describe_mixing(slots: list[Slot], step: Step, place: int) -> list[str]:
    share = float(step.mixing.share[place])
    top, left, height, width = step.mixing.box[place].tolist()
    if share == 1 and height * width == 0:
        return []
    kind = f"cutmix {width} x {height} at x {left}, y {top}" if step.mixing.blend[place] == 1 else "mixup"
    return [f"{kind} with clip {(place ^ 1) + 1}, labels {share:.2f} + {1 - share:.2f}"]
