"""Which data sets have annotation files of their owners, and who reads them. Called by `vswin.data.catalog`."""

from pathlib import Path

from vswin.data.annotations import hmdb51, kinetics, sthv2, ucf101
from vswin.data.annotations.class_names import ClassLookup
from vswin.data.annotations.entries import ListEntry
from vswin.errors import InputError
from vswin.schema import DatasetConfig

ANNOTATED = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "sthv2")


def find_annotations(dataset: DatasetConfig, classes: ClassLookup) -> list[Path | None]:
    """Looks for annotation files in their usual places.

    Args:
        dataset: one of `ANNOTATED`.
        classes: its classes.

    Returns:
        The lists for training and for validation; the first may not be there.

    Raises:
        NotFoundError: if the folder of the videos, or every list, is not there.
        InputError: if only the list for training is there.
    """
    root = Path(dataset.root)
    match dataset.name:
        case "ucf101":
            train_list, val_list = ucf101.find_lists(root, dataset.split)
        case "hmdb51":
            train_list, val_list = hmdb51.find_lists(root, dataset.split)
        case "sthv2":
            train_list, val_list = sthv2.find_lists(root)
        case _:
            train_list, val_list = kinetics.find_lists(dataset.name, root, classes)
    if val_list is None:
        raise InputError(
            f"{train_list} is there, but no list of the validation videos; name one with dataset.val_list, or set "
            f"dataset.train_list={train_list} to hold out dataset.val_fraction of the training videos"
        )
    return [train_list, val_list]


def read_annotations(dataset: DatasetConfig, path: Path, subset: str, classes: ClassLookup) -> list[ListEntry] | None:
    """Reads an annotation file.

    Args:
        dataset: one of `ANNOTATED`.
        path: the file, or a folder where the owners' lists or class folders stand for one.
        subset: "train" or "val".
        classes: of the data set.

    Returns:
        An entry per video of the subset; None if the file is not of the owners' form.

    Raises:
        InputError: if it cannot be read or is not for this data set or subset.
    """
    match dataset.name:
        case "ucf101":
            return ucf101.read_annotations(path, classes)
        case "hmdb51":
            return hmdb51.read_annotations(path, subset, dataset.split, classes)
        case "sthv2":
            return sthv2.read_annotations(path, classes)
        case _:
            return kinetics.read_annotations(path, subset, classes)
