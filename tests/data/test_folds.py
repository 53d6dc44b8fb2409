"""Tests of `dataset.folds`: which samples a fold tests, and which ones train and choose the epoch."""

import random
from pathlib import Path

import pytest

from tests.conftest import make_group
from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.load import save_config
from vswin.config.schema import DataPrepareConfig, TrainConfig
from vswin.data.catalog import Catalog, load_catalog
from vswin.data.prepare import run_prepare
from vswin.data.samples import Part, Sample, Segment, split_folds
from vswin.errors import InputError
from vswin.evaluation.protocol import load_tested


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def load_folds(num_folds: int, root: Path, **keys: object) -> list[Catalog]:
    dataset = {"root": str(root), "folds": num_folds, **keys}
    return [load_catalog(make_group("dataset", split=number + 1, **dataset)) for number in range(num_folds)]


def names_of(samples: list[Sample]) -> set[str]:
    return {Path(sample.path).name for sample in samples}


def test_folds_keep_groups_together_and_classes_balanced_wherever_the_samples_are() -> None:
    def make(base: str) -> list[Sample]:
        persons = [Sample(f"{base}/{i}.mp4", (i % 2,), group=f"person {i // 4}") for i in range(60)]
        parts = [Part(Segment(start, start + 1)) for start in range(4)]
        films = [Sample(f"{base}/film {i}.mp4", (n % 2,), part) for i in range(10) for n, part in enumerate(parts)]
        recordings = [Sample(f"{base}/c{i % 2}/v_g{i // 4}_c{i}.avi", (i % 2,)) for i in range(80)]
        return persons + films + recordings

    samples = make("/data")
    folds = split_folds(samples, 5, "/data")
    assert sorted(sample for fold in folds for sample in fold) == sorted(samples)
    groups = [{sample.group or sample.path.partition("_c")[0] for sample in fold} for fold in folds]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 15 + 10 + 40
    counts = [[sample.label for sample in fold].count(label) for fold in folds for label in (0, 1)]
    assert max(counts) - min(counts) <= 2
    moved = make("../elsewhere")
    random.Random(0).shuffle(moved)
    found = split_folds(moved, 5, "../elsewhere")
    assert [[sample.path[len("../elsewhere") :] for sample in fold] for fold in found] == [
        [sample.path[len("/data") :] for sample in fold] for fold in folds
    ]
    assert all(split_folds([Sample("a.mp4", (i % 2,), Part(Segment(i, i + 1))) for i in range(6)], 3, "."))


def test_each_video_is_tested_once_and_neither_trains_nor_chooses_the_epoch_then(tmp_path) -> None:
    files = [
        *(f"{subset}/{name}/v_g{i}_c{subset}.mp4" for subset in ("train", "val") for name in "ab" for i in range(10)),
        "test/a/1.mp4",
    ]
    catalogs = load_folds(5, make_files(tmp_path, *files), val_fraction=0.25)
    assert sorted(sample.path for catalog in catalogs for sample in catalog.test) == sorted(
        str(tmp_path / name) for name in files[:-1]
    )
    for catalog in catalogs:
        assert len(catalog.train + catalog.val + catalog.test) == 40
        assert [len(samples) for samples in catalog.subsets.values()] == [24, 8, 8]
        assert [sample.label for sample in catalog.test].count(0) == 4
        recordings = [
            {(sample.label, Path(sample.path).name.partition("_c")[0]) for sample in some}
            for some in (catalog.train + catalog.val, catalog.test)
        ]
        assert not recordings[0] & recordings[1]
        assert "not used: 1 test video, which are in no fold" in catalog.notes


def test_a_class_in_fewer_folds_keeps_its_index_and_is_named(tmp_path) -> None:
    make_files(tmp_path, *(f"{i}.mp4" for i in range(12)))
    rows = [f"{i}.mp4,{('few', 'one', 'x', 'y')[min(i, 3 - i % 2) if i > 1 else 0]},{i}\n" for i in range(12)]
    rows[2] = "2.mp4,one,2\n"
    (tmp_path / "list.csv").write_text("path,label,group\n" + "".join(rows))
    catalogs = load_folds(3, tmp_path, train_list=str(tmp_path / "list.csv"), val_fraction=0.3)
    for catalog in catalogs:
        assert catalog.class_names == ("few", "one", "x", "y")
        assert "2 classes with too few videos or groups for 3 folds: few (in 2), one (in 1)" in catalog.notes
    (only,) = [catalog for catalog in catalogs if "2.mp4" in names_of(catalog.test)]
    assert "1 class without training videos: one" in only.notes


def test_packed_videos_have_the_folds_of_their_files(small_videos, tmp_path) -> None:
    words = ["dataset=folder", f"dataset.root={small_videos}", "shards=2", f"output_dir={tmp_path / 'packed'}"]
    run_prepare(compose_config("data_prepare", words, DataPrepareConfig))
    for files, packed in zip(load_folds(3, small_videos), load_folds(3, tmp_path / "packed"), strict=True):
        for subset in ("train", "val", "test"):
            assert names_of(files.subsets[subset]) == names_of(packed.subsets[subset])


def test_an_evaluation_takes_the_fold_of_its_run_and_other_videos_as_a_whole(tmp_path) -> None:
    for root in ("here", "there"):
        make_files(tmp_path / root, *(f"{name}/{i}.mp4" for name in "ab" for i in range(6)))
    words = ["dataset=folder", f"dataset.root={tmp_path / 'here'}", "dataset.folds=3", "dataset.split=2"]
    (tmp_path / "run").mkdir()
    save_config(compose_config("train", words, TrainConfig), tmp_path / "run" / "config.yaml")
    second = load_folds(3, tmp_path / "here")[1]

    def tested(*overrides: str) -> list[Sample]:
        return load_tested(compose_evaluation(overrides, run=str(tmp_path / "run"))).tested

    assert tested() == second.test
    assert tested("dataset.split=3") == load_folds(3, tmp_path / "here")[2].test
    assert len(tested(f"dataset.root={tmp_path / 'there'}")) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dataset.folds=1", "dataset.folds=1: at least 2 and at most 1,000, or null"),
        ("dataset.folds=5 dataset.split=6", "dataset.split=6: with dataset.folds=5, the folds are 1 to 5"),
        ("dataset=kinetics400 dataset.folds=5", "dataset=kinetics400 has official lists, which divide it; leave"),
        ("dataset.folds=5 dataset.val_list=v.csv", "dataset.val_list=v.csv: folds choose the validation videos"),
        ("dataset.folds=5 dataset.test_list=t.csv", "dataset.test_list=t.csv: folds choose the test videos"),
    ],
)
def test_what_folds_do_not_go_with(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose_config("train", ["dataset=folder", *words.split()], TrainConfig)


def test_more_folds_than_can_be_filled(tmp_path) -> None:
    make_files(tmp_path, *(f"{name}/v_{name}_g{i // 4}_c{i}.mp4" for name in "ab" for i in range(8)))
    with pytest.raises(InputError, match="=5: at most 4, as many as there are videos, or groups of"):
        load_folds(5, tmp_path)
    make_files(tmp_path / "more", *(f"{name}/{i}.mp4" for name in "abc" for i in range(2)))
    with pytest.raises(InputError, match="=3: at most 2, as many as the largest class has videos"):
        load_folds(3, tmp_path / "more")
