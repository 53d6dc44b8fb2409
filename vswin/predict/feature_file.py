"""Files of features: `.npz`, which NumPy reads, and Parquet, which nearly everything for tables reads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vswin.atomic import replacing
from vswin.errors import InputError

FORMATS = (".npz", ".parquet")


class Features(NamedTuple):
    """Hold the rows of a file.

    Attributes:
        features: float32 [N, C].
        paths: N video files.
        start_sec: Where in the video each row begins, float64 [N].
        labels: Name of the class by the folder layout, N of them; empty where there is none.
        about: How they were computed, as JSON.
    """

    features: np.ndarray
    paths: list[str]
    start_sec: np.ndarray
    labels: list[str]
    about: str


def check_format(path: Path) -> None:
    """Checks before the work that a file can be written.

    Raises:
        InputError: if its ending says no format, or a package is missing.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--output {path}: the ending says the format: {' or '.join(FORMATS)}")
    if path.suffix == ".parquet":
        _import_pyarrow()


def write_features(path: Path, features: Features) -> None:
    """Writes features, the whole file or nothing.

    Args:
        path: `.npz`, which `np.load(path)` reads without pickles: the arrays `features`, `path`, `start_sec` and
            `label`, and the text `about`; or `.parquet`: columns of these names, `features` as lists of C numbers,
            `label` null where there is none, and `about` under `vswin` in the schema's metadata.
        features: the rows.
    """
    # File names may hold bytes that are no UTF-8.
    names = [name.encode(errors="backslashreplace").decode() for name in features.paths]
    with replacing(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, features, names)
            return
        with partial.open("wb") as file:
            np.savez(
                file,
                features=features.features,
                path=np.array(names),
                start_sec=features.start_sec,
                label=np.array(features.labels),
                about=np.array(features.about),
            )


def _write_parquet(path: Path, features: Features, names: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    values = pyarrow.array(features.features.ravel())  # [N*C]
    columns = {
        "path": pyarrow.array(names),
        "start_sec": pyarrow.array(features.start_sec),
        "label": pyarrow.array([label or None for label in features.labels], pyarrow.string()),
        "features": pyarrow.FixedSizeListArray.from_arrays(values, features.features.shape[1]),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"vswin": features.about})
    pyarrow.parquet.write_table(table, path)


def _import_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow, which is not installed: pip install 'vswin[parquet]'; .npz needs nothing"
        ) from None
