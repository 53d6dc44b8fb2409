"""How many videos the complete data sets have. Called by `vswin.data.check` and by evaluation."""

import json

from vswin.config import DATA_DIR


def official_counts(name: str, split: int = 1) -> dict[str, int] | None:
    """Reads the counts of a data set from `data/<name>/counts.json`.

    Args:
        name: of the data set, e.g. "kinetics400".
        split: its number; a data set without splits has number 1 alone.

    Returns:
        Videos for training and validation, e.g. {"train": 9537, "val": 3783}; None if they are not known, as of
        your own videos.
    """
    path = DATA_DIR / name / "counts.json"
    if not path.is_file():
        return None
    counts: dict[str, int] | None = json.loads(path.read_text(encoding="utf-8")).get(str(split))
    return counts
