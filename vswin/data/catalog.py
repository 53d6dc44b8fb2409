"""What a data set holds: from `DatasetConfig` to class names and lists of labelled videos.

Training and evaluation start here. Nothing is decoded, but every file is known to be there.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from vswin.config import DATA_DIR, DatasetConfig
from vswin.data.folder import load_folder
from vswin.data.lists import (
    find_class_names,
    label_videos,
    read_list,
    read_ucf101_list,
    split_train_val,
)
from vswin.data.motion import prepare_motion
from vswin.data.records import VideoRecord
from vswin.errors import InputError, nearest

_DATASETS = ("motion", "folder", "ucf101", "kinetics400")


@dataclass(frozen=True)
class Catalog:
    """Holds the classes and videos of a data set.

    Attributes:
        class_names: name of each class index; two at least.
        train: training videos; empty where only a list for evaluation is given.
        val: validation videos; for UCF101 the official test list.
    """

    class_names: tuple[str, ...]
    train: list[VideoRecord]
    val: list[VideoRecord]


def load_catalog(dataset: DatasetConfig) -> Catalog:
    """Finds the videos of a data set and their labels; makes those of `motion` on first use.

    Args:
        dataset: the config group `dataset`.

    Returns:
        The catalog; the same for every process, whatever the order of the file system.

    Raises:
        InputError: if something is missing, malformed or contradictory; the message says how to mend it.
    """
    match dataset.name:
        case "motion":
            catalog = _load_motion(dataset)
        case "folder":
            catalog = _load_lists(dataset, None) if dataset.train_list else _load_folder(dataset)
        case "ucf101":
            catalog = _load_ucf101(dataset)
        case "kinetics400":
            catalog = _load_kinetics400(dataset)
        case _:
            raise InputError(f"dataset.name={dataset.name!r} is unknown; {nearest(dataset.name, _DATASETS)}")
    num_classes = len(catalog.class_names)
    if dataset.num_classes not in (None, num_classes):
        raise InputError(
            f"dataset.num_classes={dataset.num_classes}, but the data has {num_classes} classes; leave it null to "
            "take the number from the data"
        )
    return catalog


def describe_catalog(catalog: Catalog) -> str:
    """Says how much there is: "8 classes, 3,200 training videos, 400 validation videos"."""
    return (
        f"{len(catalog.class_names):,} classes, {len(catalog.train):,} training videos, "
        f"{len(catalog.val):,} validation videos"
    )


def read_class_names(name: str) -> tuple[str, ...]:
    """Reads `data/<name>/classes.txt`: a class name per line, in the order of the class indices."""
    return tuple((DATA_DIR / name / "classes.txt").read_text(encoding="utf-8").splitlines())


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


def _load_lists(dataset: DatasetConfig, class_names: tuple[str, ...] | None) -> Catalog:
    """Reads the lists that are given; at least one is, and without class names it is the training list."""
    paths = [Path(path) if path else None for path in (dataset.train_list, dataset.val_list)]
    lists = [read_list(path) if path else [] for path in paths]
    class_names = class_names or find_class_names(lists[0] + lists[1], dataset.num_classes)
    root = Path(dataset.root)
    bases = [str(root if root.is_dir() or not path else path.parent) for path in paths]
    train, val = (label_videos(entries, class_names, base) for entries, base in zip(lists, bases, strict=True))
    catalog = Catalog(class_names, train, val)
    return catalog if dataset.val_list else _hold_out(catalog, dataset, bases[0])


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


def _load_kinetics400(dataset: DatasetConfig) -> Catalog:
    if not (dataset.train_list or dataset.val_list):
        raise InputError(
            "Kinetics-400 needs its lists of lines `path label`: set dataset.train_list and dataset.val_list (for "
            "evaluation the latter will do) and dataset.root, the folder their paths start from; "
            "data/kinetics400/README.md says where to get them"
        )
    return _load_lists(dataset, read_class_names("kinetics400"))


def _load_ucf101(dataset: DatasetConfig) -> Catalog:
    class_names = read_class_names("ucf101")
    if dataset.train_list or dataset.val_list:
        return _load_lists(dataset, class_names)
    if dataset.split not in (1, 2, 3):
        raise InputError(f"dataset.split={dataset.split}: UCF101 has the splits 1, 2 and 3")
    root = Path(dataset.root)
    list_folder = _find_ucf101_lists(root, dataset.split)
    _check_ucf101_classes(list_folder / "classInd.txt", class_names)
    is_flat = not any((root / class_name).is_dir() for class_name in class_names)
    train, val = (
        label_videos(
            read_ucf101_list(list_folder / f"{subset}list0{dataset.split}.txt", class_names, is_flat),
            class_names,
            dataset.root,
        )
        for subset in ("train", "test")
    )
    return Catalog(class_names, train, val)


def _find_ucf101_lists(root: Path, split: int) -> Path:
    folders = (root.parent / "splits", root.parent / "ucfTrainTestlist", root)
    found = [folder for folder in folders if (folder / f"trainlist0{split}.txt").is_file()]
    if root.is_dir() and found:
        return found[0]
    missing = f"the lists (trainlist0{split}.txt)" if root.is_dir() else f"the folder {root}"
    raise InputError(
        f"UCF101: {missing} cannot be found. From https://www.crcv.ucf.edu/data/UCF101.php get UCF101.rar, the "
        "videos, and UCF101TrainTestSplits-RecognitionTask.zip, the lists. Unpack the videos, so that "
        f"{root / 'Archery'} and the other 100 class folders are there, and the lists (*.txt) into {folders[0]}; "
        "or set dataset.root to the folder of the class folders, with the lists in `splits` or "
        "`ucfTrainTestlist` beside it."
    )


def _check_ucf101_classes(path: Path, class_names: tuple[str, ...]) -> None:
    """Compares the archive's own numbering, where it is there, with ours."""
    if not path.is_file():
        return
    numbered = [tuple(line.split()) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    expected = [(str(number), class_name) for number, class_name in enumerate(class_names, start=1)]
    if numbered != expected:
        raise InputError(f"{path} numbers the classes otherwise than the data set does; get the official lists anew")
