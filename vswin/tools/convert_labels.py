"""Convert labels between annotation tools and lists: `vswin data convert`."""

from pathlib import Path

from vswin.atomic import check_outputs, replacing
from vswin.console import console, count_of, printable
from vswin.data.label_tools import read_labels
from vswin.data.label_writers import WRITERS, write_labels
from vswin.errors import InputError

_ENDINGS = {".csv": "csv", ".xml": "cvat", ".eaf": "elan"}


def run_convert_labels(source: Path, output: Path, to: str | None, fps: float | None, is_overwriting: bool) -> None:
    """Reads the labels of `source`, writes them to `output`, and says what was read and what is left out."""
    to = to or _ENDINGS.get(output.suffix.lower())
    if to not in WRITERS:
        what = f"--to {to} is unknown" if to else f"{output} may have several forms by its ending"
        raise InputError(f"{what}; give --to with one of {', '.join(WRITERS)}")
    if fps is not None and not 0 < fps <= 10_000:
        raise InputError(f"--fps {fps:g}: frames per second are above 0, and at most 10,000")
    notes: list[str] = []
    entries = read_labels(source, str(source.parent), notes)
    text = write_labels(entries, to, fps, notes)
    check_outputs([output], is_overwriting)
    with replacing(output) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
    for note in notes:
        console.print(printable(note), markup=False, soft_wrap=True)
    num_videos = len({entry.path for entry in entries})
    counts = f"{count_of(len(entries), 'label')} of {count_of(num_videos, 'video')}"
    console.print(printable(f"{output}: {counts}"), markup=False, soft_wrap=True)
