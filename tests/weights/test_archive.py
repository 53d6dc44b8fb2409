import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vswin.errors import InputError
from vswin.weights.files import is_saved_model, unpack_saved_model

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": np.random.default_rng(0).bytes(100_000),
    "assets/läuft.txt": b"",
}


def tar_of(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz", form: int = tarfile.PAX_FORMAT) -> bytes:
    """Makes an archive of files with contents, and of members without contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.mode, info.uid = len(content), 1.5, 0o6777, 12345
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(kind: bytes, target: str = "", name: str = "x", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.fixture
def unpack(tmp_path):
    """Unpacks an archive whose name does not show its format."""

    def unpack(content: bytes) -> Path:
        (tmp_path / "model").write_bytes(content)
        shutil.rmtree(tmp_path / "into", ignore_errors=True)
        (tmp_path / "into").mkdir()
        return unpack_saved_model(tmp_path / "model", tmp_path / "into")

    return unpack


@pytest.fixture
def refuse(tmp_path, unpack):
    """Checks the error, and that nothing was written elsewhere."""

    def refuse(content: bytes, problem: str = "") -> None:
        with pytest.raises(InputError, match=rf"model .*{problem}") as caught:
            unpack(content)
        assert len(str(caught.value)) < 1000
        assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "model"]

    return refuse


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "model/1/"])
def test_a_saved_model_comes_out_as_it_went_in(tmp_path, unpack, mode, form, prefix):
    files = FILES | {f"assets/{'n' * 90}": b""}
    members = {"folder": member(tarfile.DIRTYPE, name=f"{prefix}assets")} if prefix else {}
    folder = unpack(tar_of(members | {f"{prefix}{name}": content for name, content in files.items()}, mode, form))
    assert folder == tmp_path / "into" / prefix
    assert {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == files
    assert (folder / "saved_model.pb").stat().st_uid != 12345


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("/etc/passwd", "../outside", "a/../../outside", ".."), "no plain file or folder below its own"),
        (("n" * 5000, "a/" * 3000 + "b", "saved_model.pb/x"), "is not unpacked"),  # no disk can have them
    ],
)
def test_names_that_lead_elsewhere_are_refused(refuse, names, problem):
    for name in names:
        refuse(tar_of({"saved_model.pb": b"", name: b"x"}), problem)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *((tarfile.SYMTYPE, target) for target in ("/etc", "..", "saved_model.pb")),
        (tarfile.LNKTYPE, "saved_model.pb"),
        *((kind, "") for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z")),
    ],
)
def test_links_devices_and_other_kinds_are_refused(refuse, kind, target):
    members = {"saved_model.pb": b"", "x": member(kind, target), "x/y": b"through it"}
    refuse(tar_of(members, form=tarfile.GNU_FORMAT), "'x' is no plain file or folder")


def test_an_archive_without_one_saved_model_is_refused(refuse):
    refuse(tar_of({"a.txt": b""}), "0 files called saved_model.pb instead of one")
    refuse(tar_of({"a/saved_model.pb": b"", "b/saved_model.pb": b""}), "2 files called saved_model.pb")


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, refuse):
    refuse(tar_of({"saved_model.pb": b"", "zeros": bytes(80 * 2**20)}), "over 20 times its size")
    refuse(gzip.compress(tar_of({"saved_model.pb": b""}, "w") + bytes(80 * 2**20)), "over 20 times its size")
    refuse(tar_of({str(number): member(tarfile.DIRTYPE) for number in range(1_001)}), "over 1000 members")
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) < 2**20


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_headers_that_claim_what_cannot_be_are_refused(refuse, wrap):
    for kind, size in [(tarfile.XHDTYPE, 10**6), (tarfile.XHDTYPE, 10**11), (tarfile.XHDTYPE, -512)]:
        refuse(
            wrap(member(kind, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(100_000)), "larger than those of many files"
        )
    for size in (-1024, 10**12):
        refuse(wrap(member(tarfile.REGTYPE, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    backwards = member(tarfile.REGTYPE)
    backwards.pax_headers = {"size": "-1024"}
    refuse(wrap(tar_of({"x": backwards, "saved_model.pb": b""}, "w")))
    header = member(tarfile.XGLTYPE, size=8192).tobuf(tarfile.PAX_FORMAT)
    refuse(wrap((header + b"8192 comment=" + b"x" * (8192 - 14) + b"\n") * 200))
    header = member(tarfile.XGLTYPE, size=1024).tobuf(tarfile.PAX_FORMAT)
    refuse(wrap((header + b"9" * 1024) * 500))
    refuse(wrap((header + b"1024 comment=" + b"x" * (1024 - 14) + b"\n") * 5000))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_cut_anywhere_is_refused_or_misses_files(unpack, refuse, mode):
    members = dict(reversed(FILES.items()))
    content = tar_of(members, mode)
    # A tar file ends with up to 10,240 zero bytes without content.
    for length in [*range(1, 2000, 111), *range(2000, len(content) - 20_000, 9973), len(content) - 20_000]:
        try:
            folder = unpack(content[:length])
        except InputError:
            continue
        # `tarfile` takes a truncated header for the end.
        assert (mode, is_saved_model(folder)) == ("w", False)
    if mode == "w:gz":
        changed = bytearray(content)
        changed[50_000] ^= 1
        refuse(bytes(changed))
    refuse(b"")
    refuse(b"\x1f\x8b")
    refuse(bytes(2048))
