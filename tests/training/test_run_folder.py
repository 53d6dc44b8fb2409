import os
import resource

import pytest

from vswin.config.load import save_config
from vswin.errors import InputError
from vswin.training.run_folder import open_run_folder


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_default_folder_names_date_model_and_dataset(compose_train):
    folder = open_run_folder(compose_train())
    assert folder.parent.name == "outputs"
    assert folder.name.endswith("_swin_micro_motion")
    assert (folder / "config.yaml").is_file()


def test_two_runs_in_one_second_do_not_share_a_folder(compose_train):
    assert open_run_folder(compose_train()) != open_run_folder(compose_train())


def test_resume_takes_the_newest_run_of_the_same_configuration(compose_train, tmp_path):
    for age, (name, overrides) in enumerate({"new": (), "other": ("epochs=99",), "old": ()}.items()):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        save_config(compose_train(*overrides), folder / "config.yaml")
        os.utime(folder / "config.yaml", (1000 - age, 1000 - age))
    assert open_run_folder(compose_train("resume=true")).name == "new"


def test_resume_without_such_a_run_is_an_error(compose_train):
    with pytest.raises(InputError, match="none of the 0 runs in outputs/ has this configuration"):
        open_run_folder(compose_train("resume=true"))


def test_resume_with_another_configuration_names_the_keys(compose_train):
    open_run_folder(compose_train("output_dir=a"))
    with pytest.raises(InputError, match="epochs: 3 there, 9 here"):
        open_run_folder(compose_train("output_dir=a", "resume=true", "epochs=9"))


def test_how_long_to_wait_and_what_to_log_may_change_on_resume(compose_train):
    folder = open_run_folder(compose_train("output_dir=c", "patience=3"))
    assert open_run_folder(compose_train("output_dir=c", "resume=true", "patience=9", "logger=wandb")) == folder


def test_a_folder_that_cannot_be_written_is_an_error(compose_train, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"output_dir=file/run cannot be written \(Not a directory\); name another"):
        open_run_folder(compose_train("output_dir=file/run"))


def test_a_configuration_that_cannot_be_written_leaves_no_run_behind(compose_train):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"output_dir=d cannot be written \(File too large\); name another"):
            open_run_folder(compose_train("output_dir=d"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (open_run_folder(compose_train("output_dir=d")) / "config.yaml").is_file()
