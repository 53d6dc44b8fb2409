"""Load a data set's catalog: turn a `DatasetConfig` into class names and lists of labelled videos.

Training and evaluation start here. Loading checks that every file exists, and decodes none.
"""

import gc
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vswin.config.schema import DatasetConfig
from vswin.console import count_of, printable
from vswin.data.annotations import ANNOTATED, NotFoundError, find_annotations, read_annotations
from vswin.data.class_names import ClassLookup, read_class_names
from vswin.data.decode import VIDEO_FILES, VideoStore
from vswin.data.folder import LAYOUT, load_folder, note_spellings
from vswin.data.labels import FileIndex, MissingVideo, label_videos
from vswin.data.lists import ACCEPTED, ROLES, TEST, TRAIN, VAL, ListEntry, find_class_names, read_list, split_train_val
from vswin.data.motion import prepare_motion
from vswin.data.packed import is_packed, load_packed
from vswin.data.records import VideoRecord
from vswin.data.tfds_sets import explain_tfds, find_prepared, load_tfds
from vswin.errors import InputError, nearest

_DATASETS = ("motion", "folder", *ANNOTATED)
# Test lists are read like validation lists, because published models are tested on validation videos.
_READ_AS = (TRAIN, VAL, VAL)


@dataclass(frozen=True)
class Catalog:
    """Holds the classes and videos of a data set.

    Attributes:
        class_names: name of each class index; at least two.
        train: training videos; empty if only an evaluation list is given.
        val: validation videos; for UCF101 and HMDB51 the official test list.
        test: test videos, if the data set has a separate test set.
        missing: for each subset the listed videos that do not exist, with `dataset.allow_missing`.
        repeated: for each subset the videos that a list repeats; each counts once.
        notes: sentences about skipped files and about possible mistakes in the classes.
        store: opens the videos, which are single files or packed into larger files.
    """

    class_names: tuple[str, ...]
    train: list[VideoRecord]
    val: list[VideoRecord]
    test: list[VideoRecord] = field(default_factory=list)
    missing: Mapping[str, tuple[MissingVideo, ...]] = field(default_factory=dict)
    repeated: Mapping[str, tuple[MissingVideo, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    store: VideoStore = VIDEO_FILES

    @property
    def tested(self) -> list[VideoRecord]:
        """The videos that an evaluation uses: the test videos, or the validation videos if there are none."""
        return self.test or self.val


def load_catalog(dataset: DatasetConfig, is_given: bool = False) -> Catalog:
    """Finds the videos of a data set and their labels, the same for every process; creates the `motion` videos.

    `is_given` marks a data set that is only used for testing: no videos are held out, a test list needs no other lists,
    and classes may be absent. An `InputError` names what is missing, malformed or contradictory, and how to fix it.
    """
    if is_given and dataset.test_list:
        dataset = replace(dataset, train_list=None, val_list=None)
    catalog = _find_source(dataset, is_given)
    num_classes = len(catalog.class_names)
    if dataset.num_classes not in (None, num_classes) and not (is_given and num_classes < dataset.num_classes):
        raise InputError(
            f"dataset.num_classes={dataset.num_classes}, but the data has {num_classes} classes; leave it null to "
            "take the number from the data"
        )
    return catalog


def _find_source(dataset: DatasetConfig, is_given: bool) -> Catalog:
    """Loads packed videos if the root holds them, else video files, else TFDS data; `source` forces the last two."""
    class_names = read_class_names(dataset.name) if dataset.name in ANNOTATED else None
    if dataset.source == "tfds":
        return _from_store(load_tfds(dataset, class_names))
    if is_packed(Path(dataset.root)):
        return _load_packed(dataset, class_names)
    try:
        return find_videos(dataset, is_given)
    except NotFoundError as error:
        if dataset.source == "videos" or dataset.tfds is None:
            raise
        if dataset.download or find_prepared(dataset) is not None:
            return _from_store(load_tfds(dataset, class_names))
        raise InputError(f"{error}\n  Or {explain_tfds(dataset)}.") from None


def _load_packed(dataset: DatasetConfig, class_names: tuple[str, ...] | None) -> Catalog:
    catalog = _from_store(load_packed(dataset))
    if class_names is not None and catalog.class_names != class_names:
        raise InputError(
            f"{dataset.root} was packed from a data set with other classes than {dataset.name}, or in another order; "
            "name the data set it was packed from with dataset="
        )
    return catalog


def _from_store(found: tuple[tuple[str, ...], list[VideoRecord], list[VideoRecord], VideoStore]) -> Catalog:
    return Catalog(*found[:3], store=found[3])


def find_videos(dataset: DatasetConfig, is_given: bool = False) -> Catalog:
    """Finds the video files of a data set below `dataset.root`, by its lists or class folders.

    Raises a `NotFoundError` if the video folder or the required lists are missing.
    """
    if dataset.name == "motion":
        return _load_motion(dataset)
    if dataset.name not in _DATASETS:
        raise InputError(f"dataset.name={dataset.name!r} is unknown; {nearest(dataset.name, _DATASETS)}")
    with _without_gc():
        if dataset.name in ANNOTATED or dataset.train_list or dataset.val_list or (is_given and dataset.test_list):
            catalog = _load_lists(dataset)
        else:
            catalog = _load_folder(dataset)
    labels = {video.label for video in (*catalog.train, *catalog.val)}
    labels |= {video.label for videos in catalog.missing.values() for video in videos}
    if len(labels) == 1 and dataset.name == "folder" and dataset.num_classes is None and not is_given:
        source, hint = (dataset.train_list, "") if dataset.train_list else (dataset.root, f" ({LAYOUT})")
        name = catalog.class_names[labels.pop()]
        raise InputError(f"{source} holds one class only, {name!r}; there must be two or more{hint}")
    if is_given and not catalog.tested:
        missing = {TEST: catalog.missing.get(TRAIN, ()), **catalog.missing, TRAIN: ()}
        catalog = replace(catalog, train=[], test=catalog.train, missing=missing)
    elif catalog.train and not catalog.val:
        catalog = _hold_out(catalog, dataset)
    notes = (*catalog.notes, *_describe_classes(catalog))
    return replace(catalog, notes=tuple(map(printable, notes)))


def describe_catalog(catalog: Catalog) -> str:
    """Counts classes, videos and missing videos: "8 classes, 3,200 training videos, 400 validation videos"."""
    found = (
        f"{count_of(len(catalog.class_names), 'class')}, {count_of(len(catalog.train), 'training video')}, "
        f"{count_of(len(catalog.val), 'validation video')}"
        + (f", {count_of(len(catalog.test), 'test video')}" if catalog.test else "")
    )
    missing = {ROLES[subset]: len(videos) for subset, videos in catalog.missing.items()}
    named = " and ".join(count_of(count, f"{role} video") for role, count in missing.items() if count)
    return f"{found}; {named} of the lists are missing" if named else found


def _describe_classes(catalog: Catalog) -> list[str]:
    """Describes which classes a subset lacks, and which names may mean the same class."""
    notes = []
    names = catalog.class_names
    present = {
        role: {video.label for video in videos}
        for role, videos in zip(ROLES.values(), (catalog.train, catalog.val, catalog.test), strict=True)
    }
    for role, labels in present.items():
        absent = [name for label, name in enumerate(names) if label not in labels]
        if labels and absent:
            shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
            notes.append(f"{count_of(len(absent), 'class')} without {role} videos: {shown}")
    if names == tuple(map(str, range(len(names)))) and not any(0 in labels for labels in present.values()):
        notes.append("no video has the label 0: if the labels count from 1, subtract 1, or class '0' stays empty")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(re.split(r"[\s_-]+", name.casefold().strip()))].append(name)
    for group in alike.values():
        if len(group) > 1:
            notes.append(
                f"WARNING: {' and '.join(map(repr, group))} count as different classes; are they one, misspelt?"
            )
    return notes


def hash_videos(videos: Sequence[VideoRecord], class_names: Sequence[str]) -> str:
    """Computes a fingerprint of a list of videos, which shows whether two accuracies were measured on the same videos.

    It has 16 hexadecimal digits and depends on file names and class names, not on order, folders or file endings.
    """
    lines = sorted(f"{Path(video.path).stem}\t{class_names[video.label]}\n" for video in videos)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextmanager
def _without_gc() -> Iterator[None]:
    """Pauses the garbage collector, whose repeated scans of growing lists would take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load_motion(dataset: DatasetConfig) -> Catalog:
    if any(_named_lists(dataset)):
        raise InputError("The motion data set has no lists; leave dataset.train_list, val_list and test_list null")
    prepare_motion(Path(dataset.root))
    return Catalog(*load_folder(Path(dataset.root)))


def _load_folder(dataset: DatasetConfig) -> Catalog:
    """Reads class folders; the test videos come from `dataset.test_list` or a folder `test` beside `train`."""
    root = Path(dataset.root)
    notes: list[str] = []
    has_test = (root / "train").is_dir() and (root / "test").is_dir()
    found = load_folder(root / "train" if has_test and not (root / "val").is_dir() else root, notes)
    catalog = Catalog(*found)
    classes = ClassLookup(catalog.class_names, is_exact=True)
    if dataset.test_list:
        path = Path(dataset.test_list)
        entries = read_list(path, _base(dataset, path), notes)
        listed = _find_listed(dataset, [None, None, path], [[], [], entries], classes, notes, search=False)
        return replace(listed, train=catalog.train, val=catalog.val)
    if has_test:
        names, videos, _ = load_folder(root / "test", notes)
        if unknown := sorted(set(names) - set(catalog.class_names)):
            raise InputError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}")
        test = [video._replace(label=classes.find(names[video.label])) for video in videos]
        catalog = replace(catalog, test=test)
    return replace(catalog, notes=tuple(notes))


def _load_lists(dataset: DatasetConfig) -> Catalog:
    """Reads the owners' annotation files, configured or found, or lists whose labels define the classes."""
    paths = _named_lists(dataset)
    is_annotated = dataset.name in ANNOTATED
    classes = ClassLookup(read_class_names(dataset.name) if is_annotated else ())
    if is_annotated and not (paths[0] or paths[1]):
        paths[:2] = find_annotations(dataset, classes)
    notes: list[str] = []
    lists: list[list[ListEntry]] = []
    for path, subset in zip(paths, _READ_AS, strict=True):
        entries = read_annotations(dataset, path, subset, classes, notes) if path and is_annotated else None
        lists.append(entries or (read_list(path, _base(dataset, path), notes) if path else []))
    if not is_annotated:
        named = lists[0] + lists[1] or lists[2]
        classes = ClassLookup(find_class_names(named, dataset.num_classes), is_exact=True)
        note_spellings({entry.label for entry in named}, notes)
    return _find_listed(dataset, paths, lists, classes, notes, search=is_annotated)


def _named_lists(dataset: DatasetConfig) -> list[Path | None]:
    return [Path(path) if path else None for path in (dataset.train_list, dataset.val_list, dataset.test_list)]


def _base(dataset: DatasetConfig, path: Path | None) -> str:
    """Returns the folder that a list's relative paths start from."""
    return str(path.parent if path and not Path(dataset.root).is_dir() else dataset.root)


def _find_listed(
    dataset: DatasetConfig,
    paths: Sequence[Path | None],
    lists: Sequence[list[ListEntry]],
    classes: ClassLookup,
    notes: list[str],
    search: bool,
) -> Catalog:
    """Finds the files of the training, validation and test lists; `search` looks anywhere below the root."""
    bases = [_base(dataset, path) for path in paths]
    by_id = [entry for entries in lists for entry in entries if entry.video_id]
    files = {base: FileIndex(Path(base), by_id) for base in {*bases}} if search else {}
    found = [
        label_videos(entries, subset, classes, base, files.get(base))
        for entries, subset, base in zip(lists, _READ_AS, bases, strict=True)
    ]
    for (videos, missing, repeated), path in zip(found, paths, strict=True):
        if missing:
            _check_missing(missing, len(videos) + len(repeated), dataset, path, classes.class_names)
        if repeated:
            where = f"{repeated[0].place}: {repeated[0].path}"
            notes.append(f"videos that {path} names again: {len(repeated):,}; each counts once, the first is {where}")
    train, val, test = found
    subsets = (TRAIN, VAL, TEST)
    return Catalog(
        *(classes.class_names, train.videos, val.videos),
        test=test.videos,
        missing={subset: tuple(listed.missing) for subset, listed in zip(subsets, found, strict=True)},
        repeated={subset: tuple(listed.repeated) for subset, listed in zip(subsets, found, strict=True)},
        notes=tuple(notes),
    )


def _check_missing(
    missing: Sequence[MissingVideo],
    num_found: int,
    dataset: DatasetConfig,
    path: Path | None,
    class_names: Sequence[str],
) -> None:
    if num_found and dataset.allow_missing:
        return
    first = "\n  ".join(f"{video.place}: {video.path}" for video in missing[:5])
    root = f"set dataset.root, which is {dataset.root}, to the folder of the videos, from which paths start"
    ways = [root, "remove their lines"]
    if num_found:
        ways.append("go without them with dataset.allow_missing=true")
    elif not any(_named_lists(dataset)):
        ways = [root, "name the one list you need with dataset.val_list or dataset.train_list"]
    understood = f"\n  The first is read as a video of the class {class_names[missing[0].label]!r}; {ACCEPTED}"
    raise InputError(
        f"{len(missing):,} of the {len(missing) + num_found:,} videos of the list {path} are not there; "
        f"{', '.join(ways[:-1])}, or {ways[-1]}. The first are:\n  {first}{'' if num_found else understood}"
    )


def _hold_out(catalog: Catalog, dataset: DatasetConfig) -> Catalog:
    base = Path(dataset.root)
    if dataset.train_list and not base.is_dir():
        base = Path(dataset.train_list).parent
    if not 0 < dataset.val_fraction < 1:
        raise InputError(f"dataset.val_fraction={dataset.val_fraction}: a share above 0 and below 1")
    train, val = split_train_val(catalog.train, dataset.val_fraction, str(base))
    if not val:
        raise InputError(
            f"None of the {len(train)} videos can be held out for validation: every class has one video or one "
            "recording only; add videos, or set dataset.val_list"
        )
    return replace(catalog, train=train, val=val)
