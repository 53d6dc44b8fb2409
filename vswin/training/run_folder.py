"""The folder of a run: found or created, locked for one process, and compared with the run to resume."""

import dataclasses
import itertools
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vswin.atomic import locked, replacing
from vswin.config.load import differing_keys, save_config
from vswin.config.schema import TrainConfig
from vswin.console import count_of, printable
from vswin.data.catalog import Catalog
from vswin.data.samples import ROLES, TRAIN, VAL, Sample, name_labels
from vswin.errors import InputError
from vswin.runtime import OUTPUTS, default_output_dir, logger
from vswin.weights.files import best_weights

STATES = Path("checkpoints", "last")
_VIDEOS = "videos.json"
_NUM_NAMED = 3
# Not compared if the run has a state, which holds all weights.
_NEEDED_ONCE = ("init_from", "source")
# Not compared either: these keys tell where the videos are, and `videos.json` which videos they are.
_PLACES = ("root", "train_list", "val_list", "allow_missing", "tfds_dir", "download")


def open_run_folder(config: TrainConfig) -> Path:
    """Finds or creates the folder of a run, with its config.yaml, from `output_dir` and `resume`.

    An `InputError` if the folder holds another run or other files or cannot be written, or no run can be resumed.
    """
    if config.resume and config.output_dir is None:
        return _newest_run(config)
    default = default_output_dir(config.model.name, config.dataset.name)
    folder = default if config.output_dir is None else Path(config.output_dir)
    if (folder / "config.yaml").exists():
        if not config.resume:
            raise InputError(
                f"output_dir={folder} holds another run; name another folder, or continue it with resume=true"
            )
        needless = [*_NEEDED_ONCE] if _holds_state(folder) else []
        if needless and (folder / _VIDEOS).exists():
            needless += [f"dataset.{key}" for key in _PLACES]
        if differing := differing_keys(config, folder, needless):
            raise InputError(
                f"resume=true: the run in {folder} was configured otherwise: {'; '.join(differing)}; "
                "give it the same values, or start a new run in another output_dir"
            )
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"output_dir={folder} exists and is not the folder of a run; name an empty or a new one")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / "config.yaml")
    return folder


def has_state(config: TrainConfig) -> bool:
    """Whether the run continues from a state; raises an InputError if there is no run to resume."""
    if not config.resume:
        return False
    return _holds_state(_newest_run(config) if config.output_dir is None else Path(config.output_dir))


def keep_videos(folder: Path, catalog: Catalog) -> None:
    """Writes the list of a run's videos; if the run has a state, an existing list stays."""
    path = folder / _VIDEOS
    if _holds_state(folder):
        if path.exists():
            return
        logger.info(f"an earlier version began this run and left no {path}: its videos cannot be compared with these")
    with replacing(path) as partial:
        partial.write_text(json.dumps(_list_videos(catalog), indent=0) + "\n", encoding="utf-8")


def match_videos(folder: Path, catalog: Catalog) -> Catalog:
    """Puts the videos into the order of the run's list, in which it has trained so far, wherever the files are now.

    An `InputError` names the first videos that differ, or says that the list cannot be read.
    """
    path = folder / _VIDEOS
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        here = _list_videos(catalog, there["num_parts"])
        differing = _compare_videos(there, here)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); copy it again, or remove it to go on without a comparison of the videos"
        ) from error
    if differing:
        weights = f" from its weights, with init_from={folder}" if best_weights(folder).exists() else ""
        raise InputError(
            f"the run in {folder} has learned from other videos than are found now: {'; '.join(differing)}. Give it "
            f"those that {path} lists, or start a new run in another output_dir{weights}"
        )
    return dataclasses.replace(
        catalog,
        train=_put_in_order(catalog.train, here["train"], there["train"]),
        val=_put_in_order(catalog.val, here["val"], there["val"]),
    )


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps other processes, on any machine, from training in the same folder inside the block."""
    path = folder / ".lock"

    def refuse() -> None:
        # Before version 4, filelock empties a lock file that another process holds.
        holder = path.read_text(encoding="utf-8") or "its number is lost"
        raise InputError(
            f"another process is training in {folder} ({holder}); wait until it has ended, or name another output_dir"
        )

    with ExitStack() as held:
        with _writing(folder):
            held.enter_context(locked(path, refuse, is_optional=True))
            path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"output_dir={folder} cannot be written ({error.strerror}); name another folder") from error


def _newest_run(config: TrainConfig) -> Path:
    runs = [path.parent for path in OUTPUTS.glob("*/config.yaml")]
    same = [run for run in runs if not differing_keys(config, run)]
    if not same:
        raise InputError(
            f"resume=true: none of the {len(runs)} runs in {OUTPUTS}/ has this configuration; "
            "name the run with output_dir=, or leave out resume=true to start a new one"
        )
    return max(same, key=lambda run: (run / "config.yaml").stat().st_mtime)


def _holds_state(folder: Path) -> bool:
    return any((folder / STATES).glob("ckpt-*.index"))


def _list_videos(catalog: Catalog, num_parts: int | None = None) -> dict[str, Any]:
    """Lists the class names, and for each video its class and as many last parts of its path as make it unique."""

    def tail(path: str, count: int) -> str:
        return "/".join(path.rsplit(os.sep, count)[-count:])

    videos = {
        split: [
            (os.path.splitext(os.path.abspath(video.path))[0] + str(video.part), video.labels) for video in split_videos
        ]
        for split, split_videos in (("train", catalog.train), ("val", catalog.val))
    }
    paths = {path for split_videos in videos.values() for path, _ in split_videos}
    if num_parts is None:
        num_parts = next(count for count in itertools.count(1) if len({tail(p, count) for p in paths}) == len(paths))
    listed = {
        split: [
            f"{tail(path, num_parts)} ({name_labels(labels, catalog.class_names)})" for path, labels in split_videos
        ]
        for split, split_videos in videos.items()
    }
    return {"class_names": list(catalog.class_names), "num_parts": num_parts, **listed}


def _compare_videos(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Describes the differences between two lists of videos, whatever their order."""

    def first(names: list[str]) -> str:
        return ", ".join(map(printable, names[:_NUM_NAMED])) + (", ..." if len(names) > _NUM_NAMED else "")

    differing = []
    classes = list(itertools.zip_longest(there["class_names"], here["class_names"]))
    changed = [number for number, (old, new) in enumerate(classes) if old != new]
    if changed:
        old, new = classes[changed[0]]
        differing.append(
            f"{len(changed)} of {len(classes)} classes differ, the first: class {changed[0]} was {old!r}, is {new!r}"
        )
    for split in (TRAIN, VAL):
        role = f"{ROLES[split]} video"
        before, now = Counter(there[split]), Counter(here[split])
        if gone := list((before - now).elements()):
            differing.append(f"{len(gone):,} of {count_of(len(there[split]), role)} gone: {first(gone)}")
        if new := list((now - before).elements()):
            differing.append(f"{count_of(len(new), f'new {role}')}: {first(new)}")
    return differing


def _put_in_order(videos: list[Sample], here: list[str], there: list[str]) -> list[Sample]:
    """Reorders videos, listed as `here`, into the order of `there`, which lists the same videos."""
    ordered = list(videos)
    old, new = (sorted(range(len(listed)), key=listed.__getitem__) for listed in (there, here))
    for position, source in zip(old, new, strict=True):
        ordered[position] = videos[source]
    return ordered
