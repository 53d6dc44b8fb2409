"""Tests of `vswin.weights.downloads.places`: which folders are looked at, and what is found there."""

from pathlib import Path

import pytest

from vswin.errors import InputError
from vswin.weights.downloads.places import cache_folder, local_copies, local_state, mirror_address, weights_folder

TINY = "swin_tiny_patch244_window877_kinetics400_1k"
K600 = "swin_base_patch244_window877_kinetics600_22k"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Makes the user's folder and the cache."""
    own, cache = tmp_path / "own", tmp_path / "cache" / "weights"
    own.mkdir()
    cache.mkdir(parents=True)
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(own))
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "cache"))
    return own, cache


def test_the_cache_is_where_the_environment_says(monkeypatch):
    for key in ("VSWIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_folder() == Path("/home/ann/.cache/vswin/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/ann/.cache/vswin/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert cache_folder() == Path("/scratch/cache/vswin/weights")
    monkeypatch.setenv("VSWIN_CACHE", "~/vswin")
    assert cache_folder() == Path("/home/ann/vswin/weights")
    monkeypatch.setenv("VSWIN_CACHE", "")
    assert cache_folder() == Path("/scratch/cache/vswin/weights")


def test_weights_dir_is_a_folder_or_a_mirror_or_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("VSWIN_WEIGHTS_DIR", raising=False)
    assert (weights_folder(), mirror_address()) == (None, None)
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    assert (weights_folder(), mirror_address()) == (tmp_path, None)
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", "https://mirror.example/vswin/")
    assert (weights_folder(), mirror_address()) == (None, "https://mirror.example/vswin")
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"VSWIN_WEIGHTS_DIR=.*missing is neither a folder nor"):
        weights_folder()


def test_nothing_is_here_at_first(folders):
    assert local_copies(TINY) == []
    assert local_state(TINY) == "not here"


def test_state_names_place_source_and_size(folders):
    own, cache = folders
    (cache / f"{TINY}.pth").write_bytes(b"x" * 1_600_000)
    (cache / "swin3d_t-7615ae03.pth").write_bytes(b"x" * 2_400_000)
    assert local_state(TINY) == "cached: official 2 MB, torchvision 2 MB"
    (own / "videoswin_tiny_kinetics400_classifier.weights.h5").write_bytes(b"x" * 3_000_000)
    assert local_state(TINY) == "in VSWIN_WEIGHTS_DIR: innat 3 MB; cached: official 2 MB, torchvision 2 MB"


def test_the_beginning_of_a_download_is_not_a_copy(folders):
    own, cache = folders
    (cache / f"{TINY}.pth.partial").write_bytes(b"x" * 1_000_000)
    assert local_state(TINY) == "begun: official 1 MB"
    assert [copy.is_whole for copy in local_copies(TINY)] == [False]
    # In the user's folder nobody downloads.
    (own / f"{TINY}.pth.partial").write_bytes(b"x")
    assert len(local_copies(TINY)) == 1


def test_files_under_the_published_name_are_found_once(folders):
    own, _ = folders
    (own / f"{TINY}.pth").write_bytes(b"x")
    (own / f"{TINY}.safetensors").write_bytes(b"xy")
    assert [(copy.source, copy.path.name) for copy in local_copies(TINY)] == [
        ("official", f"{TINY}.pth"),
        ("", f"{TINY}.safetensors"),
    ]
    assert local_state(TINY) == f"in VSWIN_WEIGHTS_DIR: official 0 MB, {TINY}.safetensors 0 MB"


def test_saved_models_are_archives_or_folders_under_the_name_of_the_page(folders):
    own, _ = folders
    alias = own / "swin_base_patch244_window877_kinetics600_1k"
    alias.mkdir()
    assert local_copies(K600) == []
    (alias / "saved_model.pb").write_bytes(b"x" * 500_000)
    (alias / "variables").mkdir()
    (alias / "variables" / "variables.data-00000-of-00001").write_bytes(b"x" * 1_500_000)
    assert local_state(K600) == "in VSWIN_WEIGHTS_DIR: tfhub 2 MB"
    (own / f"{alias.name}.tar.gz").write_bytes(b"x")
    assert [copy.path.name for copy in local_copies(alias.name)] == [f"{alias.name}.tar.gz", alias.name]
