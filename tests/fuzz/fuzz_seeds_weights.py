"""Sound weights to damage: a few small files for each format. An input maps names to contents."""

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from vswin.models.zoo import ModelSize, official_shapes
from vswin.weights.files import save_checkpoint

Files = dict[str, bytes]

WEIGHT_FILES = Path(__file__).parents[1] / "weights" / "files"
SIZE = ModelSize(4, (1, 1), (1, 2), window_size=(2, 2, 2))


@cache
def _network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in official_shapes(SIZE, 2).items()}


def written(write: Callable[[Path], None], name: str) -> bytes:
    """Returns the content of a file that `write` writes to its path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


@cache
def safetensors() -> list[Files]:
    """Makes files written by vswin and by the library."""
    metadata = {"size": {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 2, 2]}}
    metadata["class_names"] = ["a", "b"]
    ours = written(lambda path: save_checkpoint(path, _network(), metadata), "a.safetensors")
    return [{"a.safetensors": ours}, {"a.safetensors": (WEIGHT_FILES / "library.safetensors").read_bytes()}]


def torch_files() -> list[Files]:
    """Makes PyTorch files in both formats, as several training programs write them."""
    return [{"a.pth": path.read_bytes()} for path in sorted(WEIGHT_FILES.glob("*.pth"))]


def torch_pickles() -> list[Files]:
    """Makes only the pickles of PyTorch files; `with_zip` puts them into an archive with a storage."""
    found = []
    for name in ("mmcv.pth", "mmengine.pth", "microsoft.pth", "bare.pth"):
        with zipfile.ZipFile(WEIGHT_FILES / name) as archive:
            member = next(member for member in archive.namelist() if member.endswith("data.pkl"))
            found.append({"data.pkl": archive.read(member)})
    return found


def with_zip(files: Files) -> Files:
    """Puts a pickle into an archive with storages, as torch.save does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", files["data.pkl"])
        archive.writestr("a/version", b"3\n")
        for key in range(16):
            archive.writestr(f"a/data/{key}", bytes(256))
    return {"a.pth": buffer.getvalue()}


@cache
def saved_model() -> list[Files]:
    """Makes a SavedModel with all weights of a network under their official names, as vswin exports it."""
    import tensorflow as tf

    from vswin.weights.names import from_official

    weights = {name: tf.Variable(from_official(name, values), name=name) for name, values in _network().items()}
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.train.Checkpoint(weights=weights), folder)
        size = {"embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 2, 2]}
        about = {"size": size, "class_names": ["a", "b"]}
        (Path(folder) / "assets").mkdir(exist_ok=True)
        (Path(folder) / "assets" / "vswin.json").write_text(json.dumps(about))
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [{str(path.relative_to(folder)): path.read_bytes() for path in paths}]


@cache
def tars() -> list[Files]:
    """Makes a SavedModel in a tar archive, with three kinds of extended headers."""
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for name, content in {**saved_model()[0], f"assets/{'n' * 90}": b""}.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 1.5 if kind == tarfile.PAX_FORMAT else 1
                archive.addfile(info, io.BytesIO(content))
        found.append({"a.tar": buffer.getvalue()})
    return found


@cache
def archives() -> list[Files]:
    """Makes the same archives, compressed."""
    return [{"a.tar.gz": gzip.compress(tars()[0]["a.tar"], 1)}]


def with_checksums(files: Files) -> Files:
    """Corrects the checksums of damaged tar headers, so that readers parse the headers."""
    content = bytearray(files["a.tar"])
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return {"a.tar": bytes(content)}
