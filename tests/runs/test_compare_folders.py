import os

import pytest

from vswin.errors import InputError
from vswin.runs.compare import label_runs, name_folders, run_compare
from vswin.runs.files import list_runs


@pytest.fixture
def outputs(make_run, monkeypatch, tmp_path):
    for name in ("a", "b", "c"):
        make_run(name, top1=[0.5])
    make_run("no_run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_a_pattern_stands_for_the_runs_among_what_it_matches(outputs):
    assert [folder.name for folder in list_runs(["outputs/*"])] == ["a", "b", "c"]
    assert [folder.name for folder in list_runs(["outputs/c", "outputs/[ab]"])] == ["c", "a", "b"]


def test_the_same_run_counts_once_where_it_is_named_first(outputs):
    (outputs / "link").symlink_to(outputs / "b")
    arguments = ["outputs/b", str(outputs / "*"), "outputs/b/", "outputs/../outputs/b"]
    assert [folder.name for folder in list_runs(arguments)] == ["b", "a", "c"]
    with pytest.raises(InputError, match="outputs/b outputs/link: this is one run; name another one"):
        run_compare(["outputs/b", "outputs/link"])


def test_a_name_with_wildcards_is_a_name_first(make_run, outputs):
    make_run("[ab]", top1=[0.5])
    assert [folder.name for folder in list_runs(["outputs/[ab]", "outputs/a"])] == ["[ab]", "a"]


def test_what_is_no_run_is_named_with_a_way_out(outputs):
    for argument, words in (
        ("outputs/gone", "outputs/gone: there is no such folder; runs lie in outputs/"),
        ("outputs/x*", r"outputs/x\*: no run matches this pattern"),
        ("outputs/no_run", "outputs/no_run is not the folder of a run: it has none of config.yaml, history.csv"),
        ("outputs", r"there are runs in it: 'outputs/\*'"),
        ("outputs/a/history.csv", "there is no such folder"),
    ):
        with pytest.raises(InputError, match=words):
            list_runs(["outputs/a", argument])


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path):
    folders = [tmp_path / name for name in ("x/split_1", "y/split_1", "y/split_2")]
    assert name_folders(folders) == [os.path.join("x", "split_1"), os.path.join("y", "split_1"), "split_2"]


def test_letters_do_not_run_out():
    labels = label_runs(1_000)
    assert labels[:2] == ["a", "b"]
    assert labels[25:28] == ["z", "aa", "ab"]
    assert len(labels) == len(set(labels)) == 1_000
