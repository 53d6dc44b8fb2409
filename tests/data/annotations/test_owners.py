"""Tests of vswin.data.annotations.owners: every data set that has classes of its owners has a reader."""

import pytest

from vswin.config import CONFIG_DIR, DATA_DIR
from vswin.data.annotations.class_names import ClassLookup, read_class_names
from vswin.data.annotations.entries import NotFoundError
from vswin.data.annotations.owners import ANNOTATED, find_annotations
from vswin.data.catalog import load_catalog
from vswin.data.records import VideoRecord
from vswin.schema import DatasetConfig


def test_every_data_set_is_described():
    described = {path.parent.name for path in DATA_DIR.glob("*/counts.json")} - {"motion"}
    assert described == set(ANNOTATED)
    for name in ANNOTATED:
        assert (CONFIG_DIR / "dataset" / f"{name}.yaml").is_file()
        assert (DATA_DIR / name / "README.md").is_file()


@pytest.mark.parametrize("name", ANNOTATED)
def test_what_is_not_there_is_explained_for_every_data_set(name, tmp_path):
    config = DatasetConfig(name=name, root=str(tmp_path / "nowhere"), split=1)
    with pytest.raises(NotFoundError, match=rf"the folder {tmp_path}/nowhere cannot be found\. From https://"):
        find_annotations(config, ClassLookup(read_class_names(name)))


@pytest.mark.parametrize("name", ANNOTATED)
def test_every_data_set_reads_lists_of_paths(name, write, make_files, tmp_path, compose_train):
    make_files("a/x.mp4", "b/y z.mp4")
    path = write("train.txt", "a/x.mp4 0\r\nb/y z.mp4 2\r\n")
    lists = [f"dataset.train_list={path}", f"dataset.val_list={path}", f"dataset.root={tmp_path}"]
    catalog = load_catalog(compose_train(f"dataset={name}", *lists).dataset)
    found = [VideoRecord(f"{tmp_path}/a/x.mp4", 0), VideoRecord(f"{tmp_path}/b/y z.mp4", 2)]
    assert catalog.train == catalog.val == found
