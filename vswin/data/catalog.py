"""Load a data set's catalog: turn a `DatasetConfig` into class names and lists of labelled videos.

Training and evaluation start here. A source becomes a catalog in one of three ways: class folders by `folder`, lists by
`lists` or `annotations` and then `matching`, packed videos by `packed` or `tfds_sets`. Loading checks that every file
exists, and decodes none.
"""

import gc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vswin.config.schema import DatasetConfig
from vswin.console import count_of, printable
from vswin.data.annotations import ANNOTATED, NotFoundError, find_annotations, read_annotations
from vswin.data.class_names import ClassLookup, describe_classes, note_spellings, read_class_names
from vswin.data.decode import VIDEO_FILES, VideoStore
from vswin.data.folder import LAYOUT, load_folder
from vswin.data.label_tools import read_labels
from vswin.data.lists import ACCEPTED, ListEntry, find_class_names
from vswin.data.matching import FileIndex, Listed, UnusedEntry, label_videos
from vswin.data.motion import prepare_motion
from vswin.data.packed import is_packed, load_packed
from vswin.data.samples import ROLES, TEST, TRAIN, VAL, Region, Sample, name_labels, split_folds, split_train_val
from vswin.data.tfds_sets import explain_tfds, find_prepared, load_tfds
from vswin.errors import InputError, nearest

_DATASETS = ("motion", "folder", *ANNOTATED)


@dataclass(frozen=True)
class Catalog:
    """The classes and videos of a data set."""

    class_names: tuple[str, ...]  # at least two, in the order of the class indices
    train: list[Sample]  # empty if only an evaluation list is given
    val: list[Sample]  # for UCF101 and HMDB51 the official test list
    test: list[Sample] = field(default_factory=list)  # if the data set has a separate test set
    # For each subset, the listed videos that do not exist, with `dataset.allow_missing`, and those that a list repeats.
    missing: Mapping[str, tuple[UnusedEntry, ...]] = field(default_factory=dict)
    repeated: Mapping[str, tuple[UnusedEntry, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # sentences about skipped files and about possible mistakes in the classes
    store: VideoStore = VIDEO_FILES  # opens the videos, single files or packed into larger files

    @property
    def subsets(self) -> dict[str, list[Sample]]:
        """The videos of each subset that has any."""
        videos = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {subset: records for subset, records in videos.items() if records}

    @property
    def tested(self) -> list[Sample]:
        """The videos that an evaluation uses: the test videos, or the validation videos if there are none."""
        return self.test or self.val


def load_catalog(dataset: DatasetConfig, is_given: bool = False) -> Catalog:
    """Finds the videos of a data set and their labels, the same for every process; creates the `motion` videos.

    Packed videos are taken if the root holds them, else video files, else TFDS data; `source` forces the last two.
    `is_given` marks a data set that is only used for testing: no videos are held out, a test list needs no other lists,
    and classes may be absent. An `InputError` names what is missing, malformed or contradictory, and how to fix it.
    """
    class_names = read_class_names(dataset.name) if dataset.name in ANNOTATED else None
    if dataset.source == "tfds":
        catalog = _from_store(load_tfds(dataset, class_names), dataset)
    elif is_packed(Path(dataset.root)):
        catalog = _from_store(load_packed(dataset), dataset)
        if class_names not in (None, catalog.class_names):
            raise InputError(
                f"{dataset.root} was packed from a data set with other classes than {dataset.name}, or in another "
                "order; name the data set it was packed from with dataset="
            )
    else:
        try:
            catalog = find_videos(dataset, is_given)
        except NotFoundError as error:
            if dataset.source == "videos" or dataset.tfds is None:
                raise
            if not dataset.download and find_prepared(dataset) is None:
                raise InputError(f"{error}\n  Or {explain_tfds(dataset)}.") from None
            catalog = _from_store(load_tfds(dataset, class_names), dataset)
    num_classes = len(catalog.class_names)
    if dataset.num_classes not in (None, num_classes) and not (is_given and num_classes < dataset.num_classes):
        raise InputError(
            f"dataset.num_classes={dataset.num_classes}, but the data has {num_classes} classes; leave it null to "
            "take the number from the data"
        )
    return catalog


def _from_store(
    found: tuple[tuple[str, ...], list[Sample], list[Sample], VideoStore], dataset: DatasetConfig
) -> Catalog:
    catalog = Catalog(*found[:3], store=found[3])
    return catalog if dataset.folds is None else _take_fold(catalog, dataset, dataset.folds)


def find_videos(dataset: DatasetConfig, is_given: bool = False) -> Catalog:
    """Finds the video files of a data set below `dataset.root`, by its lists or class folders.

    Raises a `NotFoundError` if the video folder or the required lists are missing.
    """
    if dataset.name not in _DATASETS:
        raise InputError(f"dataset.name={dataset.name!r} is unknown; {nearest(dataset.name, _DATASETS)}")
    named = {TRAIN: dataset.train_list, VAL: dataset.val_list, TEST: dataset.test_list}
    lists = {subset: Path(path) for subset, path in named.items() if path}
    if dataset.name == "motion":
        if lists:
            raise InputError("The motion data set has no lists; leave dataset.train_list, val_list and test_list null")
        prepare_motion(Path(dataset.root))
        return Catalog(*load_folder(Path(dataset.root)))
    classes = ClassLookup(read_class_names(dataset.name)) if dataset.name in ANNOTATED else None
    if is_given and TEST in lists:
        lists = {TEST: lists[TEST]}
    elif classes is not None and not lists.keys() & {TRAIN, VAL}:
        found = zip((TRAIN, VAL), find_annotations(dataset, classes), strict=True)
        lists |= {subset: path for subset, path in found if path}
    with _without_gc():
        if lists.keys() & {TRAIN, VAL} or (lists and is_given):
            catalog = _load_lists(dataset, lists, classes, is_given)
        else:
            catalog = _load_folder(dataset, lists)
    labels = {label for video in (*catalog.train, *catalog.val) for label in video.labels}
    labels |= {label for videos in catalog.missing.values() for video in videos for label in video.labels}
    if len(labels) == 1 and dataset.name == "folder" and dataset.num_classes is None and not is_given:
        source, hint = (dataset.train_list, "") if dataset.train_list else (dataset.root, f" ({LAYOUT})")
        name = catalog.class_names[labels.pop()]
        raise InputError(f"{source} holds one class only, {name!r}; there must be two or more{hint}")
    if dataset.folds is not None:
        catalog = _take_fold(catalog, dataset, dataset.folds)
    elif is_given and not catalog.tested:
        missing = {TEST: catalog.missing.get(TRAIN, ()), **catalog.missing, TRAIN: ()}
        catalog = replace(catalog, train=[], test=catalog.train, missing=missing)
    elif catalog.train and not catalog.val:
        catalog = _hold_out(catalog, dataset)
    _check_groups(catalog)
    labels_of = {
        ROLES[subset]: {label for video in videos for label in video.labels}
        for subset, videos in catalog.subsets.items()
    }
    notes = (*catalog.notes, *describe_classes(catalog.class_names, labels_of))
    return replace(catalog, notes=tuple(map(printable, notes)))


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


def _load_folder(dataset: DatasetConfig, lists: dict[str, Path]) -> Catalog:
    """Reads class folders; the test videos come from `dataset.test_list` or a folder `test` beside `train`."""
    root = Path(dataset.root)
    notes: list[str] = []
    has_test = (root / "train").is_dir() and (root / "test").is_dir()
    class_names, train, val = load_folder(root / "train" if has_test and not (root / "val").is_dir() else root, notes)
    classes = ClassLookup(class_names, is_exact=True)
    if lists:
        listed = _load_lists(dataset, lists, classes)
        return replace(listed, train=train, val=val, notes=(*notes, *listed.notes))
    test: list[Sample] = []
    if has_test:
        names, videos, _ = load_folder(root / "test", notes)
        if unknown := sorted(set(names) - set(class_names)):
            raise InputError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}")
        test = [video._replace(labels=(classes.find(names[video.label]),)) for video in videos]
    return Catalog(class_names, train, val, test, notes=tuple(notes))


def _load_lists(
    dataset: DatasetConfig, lists: dict[str, Path], classes: ClassLookup | None, is_given: bool = False
) -> Catalog:
    """Reads annotation files or lists, and finds their files; without classes, the labels define them."""
    is_annotated, several = dataset.name in ANNOTATED, dataset.is_multi_label
    notes: list[str] = []
    # Relative paths start from the root, or from the folder of their list if there is no root.
    has_root = Path(dataset.root).is_dir()
    bases = {subset: dataset.root if has_root else str(path.parent) for subset, path in lists.items()}
    # Test lists are read like validation lists, because published models are tested on validation videos.
    read_as = {TRAIN: TRAIN, VAL: VAL, TEST: VAL}
    entries: dict[str, list[ListEntry]] = {}
    for subset, path in [*lists.items()]:
        read = read_annotations(dataset, path, read_as[subset], classes, notes) if classes and is_annotated else None
        read = read or read_labels(path, bases[subset], notes, several)
        # A list may hold several subsets; those of another list, or not to be tested, are left out.
        by_subset = {role: [entry for entry in read if (entry.subset or subset) == role] for role in ROLES}
        for role, some in by_subset.items():
            if some and role != subset and (is_given or role in lists):
                notes.append(f"not used of {path}: {count_of(len(some), f'{ROLES[role]} sample')}, by its column split")
            elif some:
                entries[role] = some
                bases[role], lists[role] = bases[subset], path
        if subset not in entries:
            raise InputError(f"{path} has no {ROLES[subset]} samples, by its column split; name it as another list")
    if classes is None:
        # A test set must not define classes that no one learns.
        named = [entry for subset in lists if subset != TEST or len(lists) == 1 for entry in entries[subset]]
        classes = ClassLookup(find_class_names(named, dataset.num_classes, several), is_exact=True)
        note_spellings({label for entry in named for label in entry.labels(several)}, notes)

    by_id = [entry for some in entries.values() for entry in some if entry.video_id]
    # Annotation tools, whose entries have no lines, rarely know the folders that videos lie in later.
    is_searched = is_annotated or any(not entry.line for some in entries.values() for entry in some)
    files = {base: FileIndex(base, by_id) for base in {*bases.values()}} if is_searched else {}
    found: dict[str, Listed] = {subset: Listed([], [], []) for subset in ROLES}
    for subset, path in lists.items():
        base = bases[subset]
        listed = label_videos(entries[subset], read_as[subset], classes, base, files.get(base), several)
        if listed.missing and not (listed.videos and dataset.allow_missing):
            raise InputError(_explain_missing(listed, dataset, path, classes.class_names))
        if listed.repeated:
            first = f"{listed.repeated[0].where}: {listed.repeated[0].path}"
            counts = "counts once, with all its labels" if several else "counts once"
            notes.append(
                f"videos that {path} names again: {len(listed.repeated):,}; each {counts}, the first is {first}"
            )
        found[subset] = listed
    margin = dataset.box_margin
    train, val, test = ([_widen(video, margin) if margin else video for video in found[role].videos] for role in ROLES)
    return Catalog(
        *(classes.class_names, train, val, test),
        missing={subset: tuple(listed.missing) for subset, listed in found.items()},
        repeated={subset: tuple(listed.repeated) for subset, listed in found.items()},
        notes=tuple(notes),
    )


def _widen(sample: Sample, margin: float) -> Sample:
    """Widens the box of a sample on each side by a fraction of its width and height."""
    region = sample.part.region
    if region is None:
        return sample
    width, height = margin * (region.right - region.left), margin * (region.bottom - region.top)
    left, top = max(region.left - width, 0), max(region.top - height, 0)
    wide = Region(left, top, region.right + width, region.bottom + height, region.in_pixels)
    return sample._replace(part=sample.part._replace(region=wide))


def _explain_missing(listed: Listed, dataset: DatasetConfig, path: Path, class_names: Sequence[str]) -> str:
    missing, num_found = listed.missing, len(listed.videos) + len(listed.repeated)
    options = [
        f"set dataset.root, which is {dataset.root}, to the folder of the videos, from which paths start",
        "remove their lines",
    ]
    if listed.videos:
        options.append("go without them with dataset.allow_missing=true")
    elif not (dataset.train_list or dataset.val_list or dataset.test_list):
        options[1] = "name the one list you need with dataset.val_list or dataset.train_list"
    first = "\n  ".join(f"{video.where}: {video.path}" for video in missing[:5])
    named = name_labels(missing[0].labels, class_names)
    understood = f"\n  The first is read as a video of the class {named!r}; {ACCEPTED}"
    return (
        f"{len(missing):,} of the {len(missing) + num_found:,} videos of the list {path} are not there; "
        f"{', '.join(options[:-1])}, or {options[-1]}. The first are:\n  {first}{'' if num_found else understood}"
    )


def _check_groups(catalog: Catalog) -> None:
    """Refuses a group with samples in two subsets."""
    first: dict[str, tuple[str, Sample]] = {}
    for subset, samples in catalog.subsets.items():
        for sample in samples:
            other, earlier = first.setdefault(sample.group, (subset, sample)) if sample.group else (subset, sample)
            if other != subset:
                raise InputError(
                    f"the group {sample.group!r} has {ROLES[other]} and {ROLES[subset]} samples, for example "
                    f"{earlier.name} and {sample.name}; move them into one list, or leave out the column `group`"
                )


def _take_fold(catalog: Catalog, dataset: DatasetConfig, num_folds: int) -> Catalog:
    """Makes one fold the test set, and holds videos of the other folds out for validation."""
    folds = split_folds([*catalog.train, *catalog.val], num_folds, _find_base(dataset))
    notes = catalog.notes
    if catalog.test:
        notes += (f"not used: {count_of(len(catalog.test), 'test video')}, which are in no fold",)
    labels = [{label for sample in fold for label in sample.labels} for fold in folds]
    in_folds = [(name, sum(label in some for some in labels)) for label, name in enumerate(catalog.class_names)]
    if few := [f"{name} (in {count})" for name, count in in_folds if count < num_folds]:
        shown = ", ".join(few[:8]) + (", ..." if len(few) > 8 else "")
        notes += (f"{count_of(len(few), 'class')} with too few videos or groups for {num_folds} folds: {shown}",)
    test = folds.pop(dataset.split - 1)
    rest = [sample for fold in folds for sample in fold]
    return _hold_out(replace(catalog, train=rest, val=[], test=test, notes=notes), dataset)


def _find_base(dataset: DatasetConfig) -> str:
    if dataset.train_list and not Path(dataset.root).is_dir():
        return str(Path(dataset.train_list).parent)
    return dataset.root


def _hold_out(catalog: Catalog, dataset: DatasetConfig) -> Catalog:
    if not 0 < dataset.val_fraction < 1:
        raise InputError(f"dataset.val_fraction={dataset.val_fraction}: a fraction above 0 and below 1")
    train, val = split_train_val(catalog.train, dataset.val_fraction, _find_base(dataset))
    if not val:
        raise InputError(
            f"None of the {len(train)} videos can be held out for validation: every class has one video, one "
            "recording or one group only; add videos, or set dataset.val_list"
        )
    notes = catalog.notes
    if {video.path for video in train} & {video.path for video in val}:
        notes += ("training and validation samples are segments of one video; another would be a stricter test",)
    return replace(catalog, train=train, val=val, notes=notes)


def describe_catalog(catalog: Catalog) -> str:
    """Counts classes, videos and missing videos: "8 classes, 3,200 training videos, 400 validation videos"."""
    counts = [count_of(len(catalog.class_names), "class")]
    counts += [count_of(len(catalog.train), "training video"), count_of(len(catalog.val), "validation video")]
    counts += [count_of(len(catalog.test), "test video")] if catalog.test else []
    missing = [count_of(len(some), f"{ROLES[subset]} video") for subset, some in catalog.missing.items() if some]
    return ", ".join(counts) + (f"; {' and '.join(missing)} of the lists are missing" if missing else "")


def hash_videos(videos: Sequence[Sample], class_names: Sequence[str]) -> str:
    """Computes a fingerprint of a list of videos, which shows whether two accuracies were measured on the same videos.

    It has 16 hexadecimal digits and depends on file names and class names, not on order, folders or file endings.
    """
    lines = sorted(
        f"{Path(video.path).stem}{video.part}\t{name_labels(video.labels, class_names)}\n" for video in videos
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
