import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.formats.archive import unpack_saved_model

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": np.random.default_rng(0).bytes(100_000),
    "assets/läuft.txt": b"",
}


def tar_of(members: dict[str, bytes], mode: str = "w:gz", folders: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for folder in folders:
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_link(kind: bytes, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, target
        archive.addfile(info)
        info = tarfile.TarInfo("saved_model.pb")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"graph"))
    return buffer.getvalue()


def write(tmp_path: Path, content: bytes) -> Path:
    """Writes an archive whose name says nothing of its kind."""
    path = tmp_path / "from" / "model"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def refuse(tmp_path: Path, content: bytes, problem: str) -> None:
    """Checks the error, and that no file is left anywhere."""
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=rf"from/model .*{problem}"):
        unpack_saved_model(path, tmp_path / "into" / "here")
    assert sorted(file.name for file in tmp_path.rglob("*")) in (["from", "into", "model"], ["from", "model"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "content",
    [
        tar_of(FILES),
        tar_of(FILES, "w"),
        tar_of(FILES, folders=("./", "variables", "assets/", "assets/empty")),
        tar_of({f"./{name}": content for name, content in FILES.items()}),
        zip_of(FILES),
        zip_of({"variables/": b"", **FILES}, zipfile.ZIP_STORED),
    ],
    ids=["tar.gz", "tar", "folders", "dots", "zip", "zip_folders"],
)
def test_a_saved_model_comes_out_as_it_went_in(tmp_path, content):
    folder = unpack_saved_model(str(write(tmp_path, content)), str(tmp_path / "into"))
    assert folder == tmp_path / "into"
    assert contents(folder) == FILES
    assert sorted(file.name for file in tmp_path.iterdir()) == ["from", "into"]


def test_a_saved_model_may_lie_in_a_folder(tmp_path):
    path = write(tmp_path, tar_of({f"model/1/{name}": content for name, content in FILES.items()}))
    folder = unpack_saved_model(path, tmp_path / "into" / "deeper")
    assert folder == tmp_path / "into" / "deeper" / "model" / "1"
    assert contents(folder) == FILES


def test_long_names_and_times_need_extended_headers(tmp_path):
    name = "variables/" + "n" * 200
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member in ("saved_model.pb", name):
            info = tarfile.TarInfo(member)
            info.mtime = 1.5
            archive.addfile(info)
    folder = unpack_saved_model(write(tmp_path, buffer.getvalue()), tmp_path / "into")
    assert sorted(contents(folder)) == ["saved_model.pb", name]


def test_files_are_neither_executable_nor_old(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("saved_model.pb")
        info.mode, info.uid, info.mtime = 0o6777, 12345, 0
        archive.addfile(info)
    file = unpack_saved_model(write(tmp_path, buffer.getvalue()), tmp_path / "into") / "saved_model.pb"
    assert file.stat().st_mode & 0o7111 == 0
    assert file.stat().st_uid == os.getuid()


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path):
    path = write(tmp_path, tar_of(FILES))
    (tmp_path / "into").mkdir()
    assert contents(unpack_saved_model(path, tmp_path / "into")) == FILES
    with pytest.raises(InputError, match="into exists already; choose another folder or delete it"):
        unpack_saved_model(path, tmp_path / "into")
    with pytest.raises(InputError, match="exists already"):
        unpack_saved_model(path, path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "a/..",
        "..",
        "c:\\windows",
        "a\\..\\..\\b",
        "c:a",
        "line\nbreak",
        "n" * 1025,
        "a/" * 33 + "b",
    ],
    ids=lambda name: name[:12].replace("\n", "_"),
)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_that_lead_elsewhere_are_refused(tmp_path, make, name):
    refuse(tmp_path, make({"saved_model.pb": b"", name: b"x"}), "would lead outside or has an odd name")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "saved_model.pb"),
        (tarfile.LNKTYPE, "saved_model.pb"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (b"Z", ""),
    ],
)
def test_links_devices_and_other_kinds_are_refused(tmp_path, kind, target):
    refuse(tmp_path, with_link(kind, target), "neither a file nor a folder")


def test_links_and_secrets_in_zip_files_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("saved_model.pb")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refuse(tmp_path, buffer.getvalue(), "'saved_model.pb' is encrypted, or neither")
    content = bytearray(zip_of({"saved_model.pb": b"graph"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    refuse(tmp_path, bytes(content), "is encrypted")


def test_two_members_of_one_name_are_refused(tmp_path):
    members = {"saved_model.pb": b"a", "./saved_model.pb": b"b"}
    refuse(tmp_path, tar_of(members), "two members called './saved_model.pb'")
    refuse(tmp_path, zip_of(members), "two members called './saved_model.pb'")
    refuse(tmp_path, tar_of({"saved_model.pb": b"", "saved_model.pb/x": b""}), "cannot be unpacked into")


def test_an_archive_without_one_saved_model_is_refused(tmp_path):
    refuse(tmp_path, tar_of({"a.txt": b""}), "0 files called saved_model.pb instead of one; take")
    both = {"a/saved_model.pb": b"", "b/saved_model.pb": b""}
    refuse(tmp_path, tar_of(both), "2 files called saved_model.pb instead of one: in a, b;")
    refuse(tmp_path, tar_of({}), "0 files called")


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, make):
    bomb = make({"saved_model.pb": b"", "zeros": bytes(80 * 2**20)})
    assert len(bomb) < 200_000
    refuse(tmp_path, bomb, "its content takes over .* bytes, more than 20 times its size")


def test_a_small_archive_may_grow_a_little(tmp_path):
    path = write(tmp_path, tar_of({"saved_model.pb": bytes(2**20)}))
    assert (unpack_saved_model(path, tmp_path / "into") / "saved_model.pb").stat().st_size == 2**20


def test_thousands_of_members_are_refused(tmp_path):
    refuse(tmp_path, tar_of({}, folders=("again",) * 1_001), "over 1000 members")


def test_headers_of_any_size_are_refused(tmp_path):
    for size in (1_000_000, 10**11, -512):
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, size
        content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
        refuse(tmp_path, content, "one of its headers is larger than any name")
    big = {f"{number:05d}" + "n" * 4000: b"" for number in range(400)}
    refuse(tmp_path, tar_of(big), "odd name|larger than")


def test_many_extended_headers_are_refused(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XGLTYPE, 8192
    record = header.tobuf(tarfile.PAX_FORMAT) + b"8192 comment=" + b"x" * (8192 - 14) + b"\n"
    refuse(tmp_path, gzip.compress(record * 200), "headers are larger than those of thousands of files|damaged")


def test_a_member_that_points_backwards_is_refused(tmp_path):
    info = tarfile.TarInfo("saved_model.pb")
    info.size = -1024
    refuse(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240), "neither a file|impossible place")


def test_sparse_files_are_refused(tmp_path):
    info = tarfile.TarInfo("saved_model.pb")
    info.type = tarfile.GNUTYPE_SPARSE
    refuse(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240), "neither a file nor a folder")


@pytest.mark.parametrize(("make", "mode"), [(tar_of, "w:gz"), (tar_of, "w"), (zip_of, None)])
def test_an_archive_cut_anywhere_is_damaged(tmp_path, make, mode):
    content = make(FILES, mode) if mode else make(FILES)
    # A tar file is padded with up to 10,240 zero bytes that carry nothing.
    end = len(content) - 20_000 if mode == "w" else len(content) - 1
    for length in [*range(0, 2000, 111), *range(2000, end, 9973), end]:
        refuse(tmp_path, content[:length], "damaged or no archive|0 files called")


def test_a_damaged_archive_is_told_from_a_sound_one(tmp_path):
    content = bytearray(tar_of(FILES))
    content[50_000] ^= 1
    refuse(tmp_path, bytes(content), "damaged or no archive")
    plain = bytearray(tar_of(FILES, "w"))
    # The checksum of the second header.
    plain[plain.index(b"variables/variables.index") + 150] ^= 1
    refuse(tmp_path, bytes(plain), "damaged or no archive")
    wrong_checksum = bytearray(zip_of(FILES))
    struct.pack_into("<I", wrong_checksum, wrong_checksum.index(b"PK\x01\x02") + 16, 7)
    refuse(tmp_path, bytes(wrong_checksum), "damaged or no archive")


def test_other_files_are_no_archives(tmp_path):
    for content in (b"", b"<html>", b"PK\x03\x04", b"\x1f\x8b", bytes(2048), os.urandom(4096)):
        refuse(tmp_path, content, "damaged or no archive|0 files called")
    with pytest.raises(InputError, match="does not exist or is no file"):
        unpack_saved_model(tmp_path / "gone.tar.gz", tmp_path / "into")


def test_a_zip_member_without_a_name_is_damage(tmp_path):
    content = bytearray(zip_of({"saved_model.pb": b""}))
    # The directory's name becomes an extra field.
    struct.pack_into("<HH", content, content.index(b"PK\x01\x02") + 28, 0, len("saved_model.pb"))
    refuse(tmp_path, bytes(content), "damaged or no archive|name")


@pytest.mark.parametrize("make", [lambda: tar_of(SMALL), lambda: tar_of(SMALL, "w"), lambda: zip_of(SMALL)])
def test_mutated_archives_unpack_or_are_input_errors(tmp_path, make):
    content = make()
    rng = np.random.default_rng(0)
    num_refused = 0
    for number in range(150):
        changed = bytearray(content)
        at, length = int(rng.integers(min(len(changed), 2600))), int(rng.integers(4))
        changed[at : at + length] = rng.bytes(int(rng.integers(4)))
        into = tmp_path / f"into{number}"
        try:
            unpack_saved_model(write(tmp_path, bytes(changed)), into)
        except InputError:
            num_refused += 1
            assert not into.exists()
    assert num_refused > 30
    assert {file.name[:4] for file in tmp_path.iterdir()} <= {"from", "into"}


SMALL = {"saved_model.pb": b"graph", "variables/variables.index": b"index" * 9}
