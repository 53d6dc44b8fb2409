"""Tests of `vswin.weights.download`: which file a published name gets, with real processes and a real server."""

import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from vswin.errors import InputError
from vswin.weights import download as module
from vswin.weights.download import (
    cache_folder,
    check_file,
    fetch,
    local_copies,
    local_state,
    weights_place,
)

TINY = "swin_tiny_patch244_window877_kinetics400_1k"
K600 = "swin_base_patch244_window877_kinetics600_22k"
LARGE = "swin_large_patch244_window877_kinetics400_22k"
OFFICIAL, INNAT = f"{TINY}.pth", "videoswin_tiny_kinetics400_classifier.weights.h5"
TORCHVISION = "swin3d_t-7615ae03.pth"
BODY = random.Random(1).randbytes(2_000_000)

FETCH = """
import dataclasses, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
from vswin.weights.published import find_weights
from vswin.weights import download
weights = find_weights(sys.argv[1])
source = dataclasses.replace(weights.sources[0], sha256_prefix=sys.argv[2])
download.find_weights = lambda name: dataclasses.replace(weights, sources=(source,))
print(download.fetch(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Gives every test its own cache, and retries without pauses."""
    monkeypatch.delenv("VSWIN_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "PAUSES_SEC", (0.0, 0.0, 0.0))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def mirror(server, monkeypatch):
    """Makes the server the mirror; the owners' addresses are unreachable."""
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", f"{server.url}/mirror/")
    server.files[OFFICIAL] = BODY
    return server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(own))
    return own


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system in memory on the folder `disk` with given options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=False).returncode:
            pytest.skip("this user may not mount a file system")
        return disk

    yield mounted
    subprocess.run(["umount", disk], check=False, stderr=subprocess.DEVNULL)


def start(sha256_prefix=""):
    """Fetches in another process, from a source with or without a published hash."""
    return subprocess.Popen([sys.executable, "-c", FETCH, TINY, sha256_prefix], stdout=-1, stderr=-1, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_name_is_downloaded_once(mirror, cache, caplog):
    with caplog.at_level(logging.INFO, "vswin"):
        path = fetch(TINY)
        assert fetch(TINY) == path == cache / OFFICIAL
    assert path.read_bytes() == BODY
    assert [request["path"] for request in mirror.requests] == [f"/mirror/{OFFICIAL}"]
    assert caplog.text.count(f"weights of {TINY}: the copy of official at {path}") == 2
    assert (cache / f"{OFFICIAL}.sha256").read_text() == f"{hashlib.sha256(BODY).hexdigest()}  {OFFICIAL}\n"
    assert sorted(file.name for file in cache.iterdir()) == [OFFICIAL, f"{OFFICIAL}.lock", f"{OFFICIAL}.sha256"]


def test_a_broken_download_without_a_hash_leaves_nothing_and_the_next_fetch_starts_anew(mirror, cache):
    mirror.plan = [{"cut": 700_000}, {"cut": 0}, {"cut": 0}, {"cut": 0}, {"status": 404}]
    with pytest.raises(InputError, match="the connection broke"):
        fetch(TINY)
    assert sorted(file.name for file in cache.iterdir()) == [f"{OFFICIAL}.lock", f"{INNAT}.lock"]
    assert fetch(TINY).read_bytes() == BODY
    assert mirror.ranges[-1] is None


def test_a_copy_of_the_same_values_steps_in_and_is_named(mirror, cache, caplog):
    mirror.files = {INNAT: b"innat's file", TORCHVISION: b"other weights"}
    with caplog.at_level(logging.INFO, "vswin"):
        assert fetch(TINY) == cache / INNAT
    assert f"{OFFICIAL} failed: the server answered 404" in caplog.text
    assert "the copy of innat" in caplog.text
    mirror.requests.clear()
    assert fetch(TINY) == cache / INNAT
    assert mirror.requests == []


def test_other_weights_never_step_in(mirror, tmp_path):
    mirror.files = {TORCHVISION: b"x", f"{TINY}.tar.gz": b"x"}
    with pytest.raises(InputError) as caught:
        fetch(TINY)
    assert [request["name"] for request in mirror.requests] == [OFFICIAL, INNAT]
    text = str(caught.value)
    for part in (
        f"the weights of {TINY} cannot be downloaded",
        f"official: {mirror.url}/mirror/{OFFICIAL}\n    the server answered 404",
        f"storage/releases/download/v1.0.4/{OFFICIAL}\n    the proxy does not let it through",
        f"by hand and put it at {tmp_path}/cache/weights/{OFFICIAL}",
        "VSWIN_WEIGHTS_DIR",
        "source=torchvision (77.715 % top-1, 93.519 % top-5; torchvision's own protocol",
        "source=tfhub (without the head)",
        "init_from=PATH",
        "init_from=null",
    ):
        assert part in text


def test_a_source_can_be_chosen_and_its_hash_is_checked(mirror, cache, monkeypatch):
    mirror.files[TORCHVISION] = b"not what torchvision publishes"
    with pytest.raises(InputError, match=r"torchvision: .*\n    wrong file: its SHA-256 is \w{64}, not 7615ae03"):
        fetch(TINY, source="torchvision")
    assert [file.name for file in cache.iterdir()] == [f"{TORCHVISION}.lock"]
    monkeypatch.setattr(hashlib, "sha256", Mock(return_value=Mock(hexdigest=lambda: "7615ae03" + "0" * 56)))
    assert fetch(TINY, source="torchvision") == cache / TORCHVISION
    assert fetch(TINY, source="official") == cache / OFFICIAL


def test_a_tfhub_model_comes_as_an_archive_under_the_name_of_its_page(mirror, cache):
    archive = "swin_base_patch244_window877_kinetics600_1k.tar.gz"
    mirror.files[archive] = b"archive"
    assert fetch(K600, source="tfhub") == cache / archive
    mirror.files.clear()
    with pytest.raises(InputError, match=r"tfhub\.dev/shoaib6174/swin_tiny\w+/1\?tf-hub-format=compressed\n"):
        fetch(TINY, source="tfhub")


def test_wrong_names_and_sources_bring_the_nearest():
    with pytest.raises(InputError, match=f"did you mean '{TINY}'"):
        fetch("swin_tiny_patch244_window877_kinetics400")
    with pytest.raises(InputError, match=r"source=torchvison does not offer .*did you mean 'torchvision'"):
        fetch(TINY, source="torchvison")
    with pytest.raises(InputError, match=r"source=torchvision does not offer .*official, innat, tfhub"):
        fetch(K600, source="torchvision")


def test_the_own_folder_comes_first_and_nothing_is_copied(folder, cache):
    cache.mkdir(parents=True)
    for place in (folder, cache):
        (place / OFFICIAL).write_bytes(b"weights")
    assert fetch(TINY) == folder / OFFICIAL
    assert [file.name for file in folder.iterdir()] == [OFFICIAL]
    (folder / OFFICIAL).unlink()
    assert fetch(TINY) == cache / OFFICIAL


def test_the_own_folder_holds_the_files_of_sources_or_an_unpacked_model(folder):
    (folder / INNAT).write_bytes(b"weights")
    assert fetch(TINY) == folder / INNAT
    saved = folder / TINY
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"graph")
    assert fetch(TINY, source="tfhub") == saved
    (folder / TORCHVISION).write_bytes(b"not what torchvision publishes")
    with pytest.raises(InputError, match=f"{TORCHVISION} is damaged or another file"):
        fetch(TINY, source="torchvision")


def test_a_password_in_the_address_of_a_mirror_is_not_shown(mirror, monkeypatch, caplog):
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", mirror.url.replace("//", "//ann:secret@"))
    with caplog.at_level(logging.INFO, "vswin"):
        fetch(TINY)
        with pytest.raises(InputError) as caught:
            fetch(K600)
    assert "secret" not in caplog.text + str(caught.value)


def test_an_https_mirror_must_not_lead_to_http(secure_server, server, monkeypatch):
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", secure_server.url)
    server.files[OFFICIAL] = BODY
    secure_server.plan = [{"status": 302, "headers": {"Location": f"{server.url}/{OFFICIAL}"}}]
    with pytest.raises(InputError, match="redirects to, is not https"):
        fetch(TINY)
    assert server.requests == []


def test_three_processes_download_once(mirror, cache):
    go_on = threading.Event()
    mirror.plan = [{"pause": go_on}]
    first = start()
    wait_for(lambda: mirror.requests)
    others = [start(), start()]
    for process in others:
        assert process.stderr.readline() == f"another process downloads {cache / OFFICIAL}; waiting for it\n"
    go_on.set()
    outputs = [process.communicate(timeout=60)[0].strip() for process in (first, *others)]
    assert outputs == [str(cache / OFFICIAL)] * 3
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("prefix", [hashlib.sha256(BODY).hexdigest()[:8], ""], ids=["with a hash", "without"])
def test_after_a_kill_a_waiting_process_goes_on_where_the_dead_one_stopped_or_anew(mirror, cache, prefix):
    never = threading.Event()
    mirror.plan = [{"pause": never}]
    first = start(prefix)
    partial = cache / f"{OFFICIAL}.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size > 500_000)
    second = start(prefix)
    assert "waiting for it" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=60)
    assert second.communicate(timeout=60)[0].strip() == str(cache / OFFICIAL)
    never.set()
    assert (cache / OFFICIAL).read_bytes() == BODY
    assert mirror.ranges[0] is None
    if prefix:
        assert int(mirror.ranges[1].removeprefix("bytes=").removesuffix("-")) > 500_000
    else:
        assert mirror.ranges[1] is None
    assert not partial.exists()


def test_a_full_disk_is_an_error_that_names_it(mirror, mount, monkeypatch):
    disk = mount("size=1m")
    monkeypatch.setenv("VSWIN_CACHE", str(disk))
    with pytest.raises(InputError, match=rf"{disk}/weights cannot store weights \(No space left.*VSWIN_CACHE"):
        fetch(TINY)
    assert [file.name for file in (disk / "weights").iterdir()] == [f"{OFFICIAL}.lock"]
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    assert fetch(TINY).read_bytes() == BODY


def test_a_read_only_cache_gives_what_it_has_and_says_what_to_do_for_the_rest(mirror, mount, monkeypatch):
    disk = mount("size=4m")
    monkeypatch.setenv("VSWIN_CACHE", str(disk))
    path = fetch(TINY)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert fetch(TINY) == path
    with pytest.raises(InputError, match=rf"{disk}/weights cannot store weights \(Read-only.*VSWIN_CACHE"):
        fetch(K600)


# Files of the cache

DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tiny.pth"
    file.write_bytes(BODY)
    return file


@pytest.mark.parametrize("content", [BODY[:-1], b"W" + BODY[1:], BODY + b"x"], ids=["cut", "edited", "longer"])
def test_a_changed_file_is_an_error_even_if_its_date_was_put_back(path, content):
    check_file(path)
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(InputError, match=rf"tiny\.pth has changed since vswin recorded it.*recorded was {DIGEST}"):
            check_file(path)


def test_the_record_of_an_earlier_version_still_tells_a_change(path):
    path.with_name("tiny.pth.json").write_text(json.dumps({"sha256": DIGEST, "size": len(BODY)}))
    check_file(path)
    path.write_bytes(b"another file")
    with pytest.raises(InputError, match=rf"recorded was {DIGEST}.*delete tiny\.pth\.json"):
        check_file(path)


def test_a_file_put_there_by_hand_must_have_the_hash_its_owner_gives(path):
    check_file(path, DIGEST[:8])
    path.with_name("tiny.pth.sha256").unlink()
    with pytest.raises(InputError, match=rf"damaged or another file.*{DIGEST}, not 00000000"):
        check_file(path, "00000000")
    assert not path.with_name("tiny.pth.sha256").exists()


# Locations of files


def test_the_cache_is_where_the_environment_says(monkeypatch):
    for key in ("VSWIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_folder() == Path("/home/ann/.cache/vswin/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert cache_folder() == Path("/scratch/cache/vswin/weights")
    monkeypatch.setenv("VSWIN_CACHE", "~/vswin")
    assert cache_folder() == Path("/home/ann/vswin/weights")
    monkeypatch.setenv("VSWIN_CACHE", "")
    assert cache_folder() == Path("/scratch/cache/vswin/weights")


def test_weights_dir_is_a_folder_or_a_mirror_or_an_error(tmp_path, monkeypatch):
    assert weights_place() is None
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path))
    assert weights_place() == tmp_path
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", "https://mirror.example/vswin/")
    assert weights_place() == "https://mirror.example/vswin"
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"VSWIN_WEIGHTS_DIR=.*missing is neither a folder nor"):
        weights_place()


def test_state_names_place_source_and_size(folder, cache):
    assert (local_copies(TINY), local_state(TINY)) == ([], "not here")
    cache.mkdir(parents=True)
    (cache / f"{TINY}.pth").write_bytes(b"x" * 1_600_000)
    (cache / TORCHVISION).write_bytes(b"x" * 2_400_000)
    (cache / f"{INNAT}.partial").write_bytes(b"x")
    assert local_state(TINY) == "cached: official 2 MB, torchvision 2 MB"
    (folder / INNAT).write_bytes(b"x" * 3_000_000)
    assert local_state(TINY) == "in VSWIN_WEIGHTS_DIR: innat 3 MB; cached: official 2 MB, torchvision 2 MB"
