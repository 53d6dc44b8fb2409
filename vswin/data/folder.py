"""Find video files in folders, for every command, and read data sets that have a folder per class."""

import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from vswin.console import count_of
from vswin.data.class_names import note_spellings
from vswin.data.decode import PICTURE_SUFFIXES
from vswin.data.samples import Sample
from vswin.errors import InputError

_FORMATS = (
    "264 265 3g2 3gp amv apng asf avi divx dv f4v flv gif gxf h264 h265 hevc ivf m1v m2p m2t m2ts m2v m4v mjpeg mjpg "
    "mk3d mkv mov mp4 mpe mpeg mpg mpv mts mxf nut ogm ogv qt rm rmvb swf ts vob webm wmv wtv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
ENDINGS = "files ending in .avi, .mp4, .mkv, .webm and so on; data/README.md lists the endings"
LAYOUT = "expected <root>/<class>/<video>, or <root>/train/<class>/<video> with <root>/val/<class>/<video>"
# Folders with these names contain classes; they are not classes themselves.
_SUBSETS = ("train", "training", "val", "valid", "validation", "test", "testing")


def load_folder(root: Path, notes: list[str] | None = None) -> tuple[tuple[str, ...], list[Sample], list[Sample]]:
    """Lists the videos below a folder that contains class folders, or `train` and `val` with class folders.

    Videos may lie in sub-folders of a class folder. `notes` gets sentences about skipped files and about files that
    several links point to, which count once.

    Returns class names in sorted order, the records of `train` and the records of `val`, sorted by class and name.
    Without these two folders, the first list has all records and the second is empty. An `InputError` says which
    folders or videos are missing or misplaced, or which file is in two classes.
    """
    notes = [] if notes is None else notes
    parts = [root / "train", root / "val"]
    if not all(part.is_dir() for part in parts):
        parts = [root]
    elif unused := {path.name for path in root.glob("[!.]*") if path.is_dir()} - {"train", "val", "test"}:
        notes.append(f"not used of {root}: {', '.join(sorted(unused))}")
    class_folders = [_find_classes(part) for part in parts]
    class_names = tuple(sorted({name for folders in class_folders for name in folders}))

    # Each real file gets one record.
    others: Counter[str] = Counter()
    subsets: list[list[Sample]] = []
    num_links = 0
    for folders in class_folders:
        first: dict[str, Sample] = {}
        for label, name in enumerate(class_names):
            for path, real in (video for folder in folders.get(name, []) for video in list_videos(folder, others)):
                earlier = first.setdefault(real, Sample(path, (label,)))
                num_links += earlier.path != path
                if earlier.label != label:
                    raise InputError(
                        f"{earlier.path} and {path} are one file with two labels, {class_names[earlier.label]!r} and "
                        f"{name!r}; remove one of them"
                    )
        subsets.append(list(first.values()))

    parents = {(video.label, os.path.dirname(video.path)) for videos in subsets for video in videos}
    labels = {label for label, _ in parents}
    for label, name in enumerate(class_names):
        paths = [path for folders in class_folders for path in folders.get(name, [])]
        is_subset = name.lower() in _SUBSETS and not parents & {(label, path) for path in paths}
        if is_subset or label not in labels:
            raise InputError(
                f"There are no videos of the class {name!r} in {', '.join(paths)} ({ENDINGS}); add some or remove the "
                f"class folder. {LAYOUT.capitalize()}"
            )
    paths_of_classes = [path for folders in class_folders for paths in folders.values() for path in paths]
    note_spellings({os.path.basename(path) for path in paths_of_classes}, notes)
    if others:
        notes.append(f"left out of the class folders: {count_others(others)}")
    if num_links:
        notes.append(f"links to videos that are there already: {num_links:,}; each video counts once")
    return class_names, subsets[0], subsets[1] if len(subsets) > 1 else []


def _find_classes(root: Path) -> dict[str, list[str]]:
    """Finds the folders of each class; a class has two if its name occurs in two Unicode forms."""
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; set dataset.root ({LAYOUT})")
    try:
        names = sorted(name for name in os.listdir(root) if not name.startswith("."))
    except OSError as error:
        refuse_folder(error)
    classes: dict[str, list[str]] = {}
    for name in names:
        path = os.path.join(root, name)
        if os.path.isdir(path):
            classes.setdefault(normalize("NFC", name), []).append(path)
        elif is_video(name):
            raise InputError(f"{root} holds videos outside of class folders, e.g. {name}; {LAYOUT}")
    if not classes:
        raise InputError(f"{root} holds no class folders; {LAYOUT}")
    return classes


def is_video(name: str) -> bool:
    """Tells by its ending, in upper or lower case, whether a file is a video."""
    return name[name.rfind(".") :].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def list_videos(folder: str, others: Counter[str]) -> list[tuple[str, str]]:
    """Lists path and real path of the videos below a folder, sorted by folder and name; counts `others` by ending.

    A folder of numbered pictures inside of it is a video, too.
    """
    videos = []
    pictures: dict[tuple[str, str], list[str]] = defaultdict(list)  # by folder
    for path, real in walk_files(folder):
        parent, name = os.path.split(path)
        ending = os.path.splitext(name)[1].lower()
        if is_video(name):
            videos.append((path, real))
        elif ending in PICTURE_SUFFIXES and parent != folder:
            pictures[parent, os.path.dirname(real)].append(name)
        else:
            others[ending] += 1
    for parents, names in pictures.items():
        if are_numbered(names):
            videos.append(parents)
        else:
            others.update(os.path.splitext(name)[1].lower() for name in names)
    return sorted(videos, key=lambda video: os.path.split(video[0]))


def are_numbered(names: Sequence[str]) -> bool:
    """Tells whether two or more names of pictures differ in their numbers only: img_00001.jpg, img_00002.jpg."""
    return len(names) > 1 and len({re.sub(r"\d+", "0", name) for name in names}) == 1


def count_others(others: Counter[str]) -> str:
    """Describes the number of non-video files by ending: "12 other files (10 .txt, 2 .jpg)"."""
    kinds = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in others.most_common(5))
    return f"{count_of(others.total(), 'other file')} ({kinds}{', ...' if len(others) > 5 else ''})"


def refuse_folder(error: OSError) -> None:
    """Raises an `InputError` for an unreadable folder."""
    raise InputError(f"the folder {error.filename} cannot be read ({error.strerror})") from None


def walk_files(root: str, on_error: Callable[[OSError], None] = refuse_folder) -> Iterator[tuple[str, str]]:
    """Yields path and real path of every file below a folder, in arbitrary order, without names that begin with a dot.

    Links are followed; each real folder is visited once, because links may form a cycle. For an unreadable folder it
    calls `on_error`, then skips the folder.
    """
    real_root = os.path.realpath(root)
    # A link to a parent folder also forms a cycle.
    seen = set(map(str, Path(real_root).parents))
    waiting = deque([(root, real_root)])
    links: dict[str, str] = {}
    while waiting:
        folder, real = waiting.popleft()
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            on_error(error)
            continue
        for entry in entries:
            is_link = entry.is_symlink()
            found = entry.path, real_path(entry.path, links) if is_link else os.path.join(real, entry.name)
            if not (os.path.isdir(entry.path) if is_link else entry.is_dir()):
                yield found
            elif is_link:
                waiting.append(found)  # last, so that a folder keeps its own name if it also lies here directly
            else:
                waiting.appendleft(found)


def real_path(link: str, folders: dict[str, str]) -> str:
    """Returns the real path of a link; `folders` caches the real paths of folders, which many links share."""
    folder, name = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    found = os.path.join(folders[folder], name)
    return os.path.realpath(link) if name in ("", ".", "..") or os.path.islink(found) else found
