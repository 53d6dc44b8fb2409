"""Tests of `download`: which file a published name gets, with real processes and a real server."""

import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from vswin.errors import InputError
from vswin.weights.downloads import transfer
from vswin.weights.downloads.download import fetch

TINY = "swin_tiny_patch244_window877_kinetics400_1k"
K600 = "swin_base_patch244_window877_kinetics600_22k"
LARGE = "swin_large_patch244_window877_kinetics400_22k"
OFFICIAL, INNAT = f"{TINY}.pth", "videoswin_tiny_kinetics400_classifier.weights.h5"
TORCHVISION = "swin3d_t-7615ae03.pth"
BODY = random.Random(1).randbytes(2_000_000)

FETCH = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
from vswin.weights.downloads.download import fetch
print(fetch(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Gives every test a cache of its own, and no patience."""
    monkeypatch.delenv("VSWIN_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "PAUSES_SEC", (0.0, 0.0, 0.0))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def mirror(server, monkeypatch):
    """Makes the server the mirror; the owners' addresses cannot be reached."""
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", f"{server.url}/mirror/")
    server.files[OFFICIAL] = BODY
    return server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes the user's folder."""
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


def start(name=TINY):
    return subprocess.Popen([sys.executable, "-c", FETCH, name], stdout=-1, stderr=-1, text=True)


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
    record = json.loads((cache / f"{OFFICIAL}.json").read_text())
    assert (record["sha256"], record["size"]) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    assert record["url"] == f"{mirror.url}/mirror/{OFFICIAL}"
    assert sorted(file.name for file in cache.iterdir()) == [OFFICIAL, f"{OFFICIAL}.json", f"{OFFICIAL}.lock"]


def test_a_broken_download_is_gone_on_with_by_the_next_fetch(mirror, cache):
    mirror.plan = [{"cut": 700_000}, {"cut": 0}, {"cut": 0}, {"cut": 0}, {"status": 404}]
    with pytest.raises(InputError, match="the line broke"):
        fetch(TINY)
    assert not (cache / OFFICIAL).exists()
    assert fetch(TINY).read_bytes() == BODY
    assert mirror.bytes_sent == len(BODY)


def test_a_copy_of_the_same_values_steps_in_and_is_named(mirror, cache, caplog):
    mirror.files = {INNAT: b"innat's file", TORCHVISION: b"other weights"}
    with caplog.at_level(logging.INFO, "vswin"):
        assert fetch(TINY) == cache / INNAT
    assert f"{OFFICIAL} gives none: the server answered 404" in caplog.text
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


def test_the_error_can_be_followed(server, cache):
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(TINY)
    (cache / OFFICIAL).write_bytes(b"fetched by hand")
    assert fetch(TINY) == cache / OFFICIAL


def test_a_source_can_be_chosen_and_its_hash_is_checked(mirror, cache, monkeypatch):
    mirror.files[TORCHVISION] = b"not what torchvision publishes"
    with pytest.raises(InputError, match=r"torchvision: .*\n    wrong file: its SHA-256 is \w{64}, not 7615ae03"):
        fetch(TINY, source="torchvision")
    assert [file.name for file in cache.iterdir()] == [f"{TORCHVISION}.lock"]
    monkeypatch.setattr(hashlib, "sha256", Mock(return_value=Mock(hexdigest=lambda: "7615ae03" + "0" * 56)))
    assert fetch(TINY, source="torchvision") == cache / TORCHVISION
    assert fetch(TINY, source="official") == cache / OFFICIAL


def test_a_model_without_official_copy_comes_from_its_owner(mirror):
    with pytest.raises(InputError) as caught:
        fetch(LARGE)
    assert "mmaction2: https://download.openmmlab.com" in str(caught.value)
    assert "take another copy" not in str(caught.value)


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


def test_the_name_of_the_hub_page_is_an_alias(mirror, cache):
    mirror.files[f"{K600}.pth"] = b"weights"
    assert fetch("swin_base_patch244_window877_kinetics600_1k") == cache / f"{K600}.pth"


@pytest.mark.parametrize("name", ["swin_base_patch244_window1677_kinetics400_22k", "swin_base_patch4_window12_384_22k"])
def test_weights_to_start_from_have_names_too(mirror, cache, name):
    mirror.files[f"{name}.pth"] = b"weights"
    assert fetch(name) == cache / f"{name}.pth"


def test_a_cached_file_that_changed_is_noticed(mirror):
    path = fetch(TINY)
    path.write_bytes(BODY[:-1] + b"!")
    with pytest.raises(InputError, match=r"has changed since.*Delete it"):
        fetch(TINY)
    path.unlink()
    assert fetch(TINY).read_bytes() == BODY


def test_the_own_folder_comes_first_and_nothing_is_copied(folder, cache):
    cache.mkdir(parents=True)
    for place in (folder, cache):
        (place / OFFICIAL).write_bytes(b"weights")
    assert fetch(TINY) == folder / OFFICIAL
    assert [file.name for file in folder.iterdir()] == [OFFICIAL]
    (folder / OFFICIAL).unlink()
    assert fetch(TINY) == cache / OFFICIAL


def test_the_own_folder_may_use_the_published_name_or_the_file_name_of_a_source(folder):
    (folder / f"{TINY}.safetensors").write_bytes(b"weights")
    assert fetch(TINY) == folder / f"{TINY}.safetensors"
    (folder / INNAT).write_bytes(b"weights")
    assert fetch(TINY) == folder / INNAT
    saved = folder / TINY
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"graph")
    assert fetch(TINY, source="tfhub") == saved
    (folder / TORCHVISION).write_bytes(b"not what torchvision publishes")
    with pytest.raises(InputError, match=f"{TORCHVISION} is damaged or another file"):
        fetch(TINY, source="torchvision")


def test_an_own_file_is_not_taken_for_a_named_source(folder, server):
    (folder / f"{TINY}.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(TINY, source="official")


def test_a_password_in_the_address_of_a_mirror_is_not_shown(mirror, monkeypatch, caplog):
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", mirror.url.replace("//", "//ann:secret@"))
    with caplog.at_level(logging.INFO, "vswin"):
        path = fetch(TINY)
        with pytest.raises(InputError) as caught:
            fetch(K600)
    assert "secret" not in caplog.text + str(caught.value) + path.with_name(f"{OFFICIAL}.json").read_text()


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


def test_after_a_kill_a_waiting_process_goes_on_where_the_dead_one_stopped(mirror, cache):
    never = threading.Event()
    mirror.plan = [{"pause": never}]
    first = start()
    partial = cache / f"{OFFICIAL}.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size > 500_000)
    second = start()
    assert "waiting for it" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=60)
    assert second.communicate(timeout=60)[0].strip() == str(cache / OFFICIAL)
    never.set()
    assert (cache / OFFICIAL).read_bytes() == BODY
    assert mirror.ranges[0] is None
    assert int(mirror.ranges[1].removeprefix("bytes=").removesuffix("-")) > 500_000
    assert not partial.exists()


def test_a_full_disk_is_an_error_that_names_it_and_the_part_is_gone_on_with(mirror, mount, monkeypatch):
    disk = mount("size=1m")
    monkeypatch.setenv("VSWIN_CACHE", str(disk))
    with pytest.raises(InputError, match=rf"2 MB are to be downloaded to {disk}/weights.*VSWIN_CACHE"):
        fetch(TINY)
    # Another program may fill the disk meanwhile.
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_check_space", lambda *arguments: None)
        with pytest.raises(InputError, match=rf"{disk}/weights cannot keep weights \(No space left.*VSWIN_CACHE"):
            fetch(TINY)
    sent = (disk / "weights" / f"{OFFICIAL}.partial").stat().st_size
    assert 900_000 < sent < 1_100_000
    assert not (disk / "weights" / OFFICIAL).exists()
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    assert fetch(TINY).read_bytes() == BODY
    assert mirror.ranges[-1] == f"bytes={sent}-"


def test_a_read_only_cache_gives_what_it_has_and_says_what_to_do_for_the_rest(mirror, mount, monkeypatch):
    disk = mount("size=4m")
    monkeypatch.setenv("VSWIN_CACHE", str(disk))
    path = fetch(TINY)
    os.utime(path)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert fetch(TINY) == path
    with pytest.raises(InputError, match=rf"{disk}/weights cannot keep weights \(Read-only.*VSWIN_CACHE"):
        fetch(K600)


def test_a_cache_that_cannot_be_made_names_the_folder(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=rf"{tmp_path}/file/weights cannot keep weights \(Not a dir.*VSWIN_CACHE"):
        fetch(TINY)
