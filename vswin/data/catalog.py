"""What a data set holds: from `DatasetConfig` to class names and lists of labelled videos.

Training and evaluation start here. Nothing is decoded, but every file is known to be there.
"""

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import ROLES, TRAIN, VAL, ListEntry, NotFoundError
from vswin.data.annotations.file_index import FileIndex
from vswin.data.annotations.labels import MissingVideo, label_videos
from vswin.data.annotations.owners import ANNOTATED, find_annotations, read_annotations
from vswin.data.folder import load_folder
from vswin.data.lists import find_class_names, read_list, split_train_val
from vswin.data.motion import prepare_motion
from vswin.data.packed.contents import is_packed
from vswin.data.packed.tfds_catalog import explain_tfds, find_prepared, load_tfds
from vswin.data.packed.videos import load_packed
from vswin.data.records import VideoRecord
from vswin.data.stores import VIDEO_FILES, VideoStore
from vswin.errors import InputError, nearest
from vswin.schema import DatasetConfig
from vswin.wording import count_of

_DATASETS = ("motion", "folder", *ANNOTATED)
_SUBSETS = (TRAIN, VAL)


@dataclass(frozen=True)
class Catalog:
    """Holds the classes and videos of a data set.

    Attributes:
        class_names: name of each class index; two at least.
        train: training videos; empty where only a list for evaluation is given.
        val: validation videos; for UCF101 and HMDB51 the official test list.
        missing_train: training videos that a list names and that are not there, with `dataset.allow_missing`.
        missing_val: validation videos of this kind.
        store: opens the videos: they are files, or packed into larger ones.
    """

    class_names: tuple[str, ...]
    train: list[VideoRecord]
    val: list[VideoRecord]
    missing_train: tuple[MissingVideo, ...] = ()
    missing_val: tuple[MissingVideo, ...] = ()
    store: VideoStore = VIDEO_FILES


def load_catalog(dataset: DatasetConfig) -> Catalog:
    """Finds the videos of a data set and their labels; makes those of `motion` on first use.

    Args:
        dataset: the config group `dataset`.

    Returns:
        The catalog; the same for every process, whatever the order of the file system.

    Raises:
        InputError: if something is missing, malformed or contradictory; the message says how to mend it.
    """
    catalog = _find_source(dataset)
    num_classes = len(catalog.class_names)
    if dataset.num_classes not in (None, num_classes):
        raise InputError(
            f"dataset.num_classes={dataset.num_classes}, but the data has {num_classes} classes; leave it null to "
            "take the number from the data"
        )
    return catalog


def _find_source(dataset: DatasetConfig) -> Catalog:
    """Takes packed videos where the root holds them, else videos, else what TFDS has; `source` forces the last two."""
    class_names = read_class_names(dataset.name) if dataset.name in ANNOTATED else None
    if dataset.source == "tfds":
        return _from_store(*load_tfds(dataset, class_names))
    if is_packed(Path(dataset.root)):
        return _load_packed(dataset, class_names)
    try:
        return find_videos(dataset)
    except NotFoundError as error:
        if dataset.source == "videos" or dataset.tfds is None:
            raise
        if dataset.download or find_prepared(dataset) is not None:
            return _from_store(*load_tfds(dataset, class_names))
        raise InputError(f"{error}\n  Or {explain_tfds(dataset)}.") from None


def _load_packed(dataset: DatasetConfig, class_names: tuple[str, ...] | None) -> Catalog:
    catalog = _from_store(*load_packed(dataset))
    if class_names is not None and catalog.class_names != class_names:
        raise InputError(
            f"{dataset.root} was packed from a data set with other classes than {dataset.name}, or in another order; "
            "name the data set it was packed from with dataset="
        )
    return catalog


def _from_store(
    class_names: tuple[str, ...], train: list[VideoRecord], val: list[VideoRecord], store: VideoStore
) -> Catalog:
    return Catalog(class_names, train, val, store=store)


def find_videos(dataset: DatasetConfig) -> Catalog:
    """Finds the videos of a data set that are files below `dataset.root`, by its lists or class folders.

    Args:
        dataset: the config group `dataset`.

    Returns:
        The catalog.

    Raises:
        NotFoundError: if the folder of the videos, or the lists of a data set that needs them, are not there.
        InputError: if something else is missing, malformed or contradictory.
    """
    if dataset.name in ANNOTATED:
        with _without_gc():
            return _load_annotated(dataset)
    if dataset.name == "motion":
        return _load_motion(dataset)
    if dataset.name == "folder":
        with _without_gc():
            return _load_lists(dataset) if dataset.train_list else _load_folder(dataset)
    raise InputError(f"dataset.name={dataset.name!r} is unknown; {nearest(dataset.name, _DATASETS)}")


def describe_catalog(catalog: Catalog) -> str:
    """Says how much there is: "8 classes, 3,200 training videos, 400 validation videos"; and what is missing."""
    found = (
        f"{count_of(len(catalog.class_names), 'class')}, {count_of(len(catalog.train), 'training video')}, "
        f"{count_of(len(catalog.val), 'validation video')}"
    )
    missing = {ROLES[TRAIN]: len(catalog.missing_train), ROLES[VAL]: len(catalog.missing_val)}
    named = " and ".join(count_of(count, f"{role} video") for role, count in missing.items() if count)
    return f"{found}; {named} of the lists are missing" if named else found


def hash_videos(videos: Sequence[VideoRecord], class_names: Sequence[str]) -> str:
    """Makes a fingerprint of a list of videos, to tell whether two accuracies are of the same videos.

    Args:
        videos: in any order.
        class_names: of the data set.

    Returns:
        16 hexadecimal digits: equal for equal file names, but for folders and endings, with equal classes.
    """
    lines = sorted(f"{Path(video.path).stem}\t{class_names[video.label]}\n" for video in videos)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextmanager
def _without_gc() -> Iterator[None]:
    """Pauses the garbage collector: it would look through growing lists again and again, for a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load_motion(dataset: DatasetConfig) -> Catalog:
    if dataset.train_list or dataset.val_list:
        raise InputError("The motion data set has no lists; leave dataset.train_list and dataset.val_list null")
    prepare_motion(Path(dataset.root))
    return Catalog(*load_folder(Path(dataset.root)))


def _load_folder(dataset: DatasetConfig) -> Catalog:
    if dataset.val_list:
        raise InputError(f"dataset.val_list={dataset.val_list} needs dataset.train_list beside it")
    catalog = Catalog(*load_folder(Path(dataset.root)))
    return catalog if catalog.val else _hold_out(catalog, dataset, dataset.root)


def _load_lists(dataset: DatasetConfig) -> Catalog:
    """Reads lists whose labels name the classes."""
    paths = _named_lists(dataset)
    lists = [read_list(path) if path else [] for path in paths]
    classes = ClassLookup(find_class_names(lists[0] + lists[1], dataset.num_classes), is_exact=True)
    return _find_listed(dataset, paths, lists, classes, search=False)


def _load_annotated(dataset: DatasetConfig) -> Catalog:
    """Reads annotation files, those that are named or those that are found."""
    classes = ClassLookup(read_class_names(dataset.name))
    paths = _named_lists(dataset)
    if paths == [None, None]:
        paths = find_annotations(dataset, classes)
    lists = [
        read_annotations(dataset, path, subset, classes) if path else []
        for path, subset in zip(paths, _SUBSETS, strict=True)
    ]
    return _find_listed(dataset, paths, lists, classes, search=True)


def _named_lists(dataset: DatasetConfig) -> list[Path | None]:
    return [Path(path) if path else None for path in (dataset.train_list, dataset.val_list)]


def _find_listed(
    dataset: DatasetConfig,
    paths: Sequence[Path | None],
    lists: Sequence[list[ListEntry]],
    classes: ClassLookup,
    search: bool,
) -> Catalog:
    """Finds the files of both lists, anywhere below the root if `search`, and divides a training list that is alone."""
    root = Path(dataset.root)
    bases = [str(root if root.is_dir() or not path else path.parent) for path in paths]
    by_id = [entry for entries in lists for entry in entries if entry.video_id]
    files = {base: FileIndex(Path(base), by_id) for base in bases} if search else {}
    found = [
        label_videos(entries, subset, classes, base, files.get(base))
        for entries, subset, base in zip(lists, _SUBSETS, bases, strict=True)
    ]
    for (videos, missing), path in zip(found, paths, strict=True):
        if missing:
            _check_missing(missing, len(videos), dataset, path)
    catalog = Catalog(classes.class_names, found[0][0], found[1][0], tuple(found[0][1]), tuple(found[1][1]))
    return catalog if lists[1] else _hold_out(catalog, dataset, bases[0])


def _check_missing(missing: Sequence[MissingVideo], num_found: int, dataset: DatasetConfig, path: Path | None) -> None:
    if num_found and dataset.allow_missing:
        return
    first = "\n  ".join(f"{video.place}: {video.path}" for video in missing[:5])
    root = f"set dataset.root, which is {dataset.root}, to the folder of the videos, from which paths start"
    ways = [root, "remove their lines"]
    if num_found:
        ways.append("go without them with dataset.allow_missing=true")
    elif not (dataset.train_list or dataset.val_list):
        ways = [root, "name the one list you need with dataset.val_list or dataset.train_list"]
    raise InputError(
        f"{len(missing):,} of the {len(missing) + num_found:,} videos of the list {path} are not there; "
        f"{', '.join(ways[:-1])}, or {ways[-1]}. The first are:\n  {first}"
    )


def _hold_out(catalog: Catalog, dataset: DatasetConfig, base: str) -> Catalog:
    if not 0 < dataset.val_fraction < 1:
        raise InputError(f"dataset.val_fraction={dataset.val_fraction}: a share above 0 and below 1")
    train, val = split_train_val(catalog.train, dataset.val_fraction, base)
    if not val:
        raise InputError(
            f"None of the {len(train)} videos can be held out for validation: every class has one video or one "
            "recording only; add videos, or set dataset.val_list"
        )
    return replace(catalog, train=train, val=val)
