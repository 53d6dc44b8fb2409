"""Tests of `vswin.tools.models_table`: the table that `vswin models` prints."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from vswin.errors import InputError
from vswin.tools.models_table import models_records, print_models
from vswin.weights.published import all_published

TINY = "swin_tiny_patch244_window877_kinetics400_1k"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VSWIN_CACHE", str(tmp_path))
    monkeypatch.delenv("VSWIN_WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(width=None, **options):
    """Prints the table as to a pipe, or to a window with so many columns."""
    file = io.StringIO()
    is_terminal = width is not None
    print_models(Console(file=file, width=width, highlight=False, soft_wrap=not is_terminal), **options)
    return file.getvalue().splitlines()


def below(lines, name):
    """Returns the line of a name and the lines that belong to it."""
    start = next(i for i, line in enumerate(lines) if line.split() and line.split()[0] == name)
    rows = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith("    "):
            break
        rows.append(line.strip())
    return rows


def test_every_name_stands_whole_on_a_line_and_80_columns_do(tmp_path):
    lines = printed()
    starts = [line.split()[0] for line in lines if line.startswith("swin_")]
    assert starts == [weights.name for weights in all_published()]
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_a_row_has_accuracy_views_parameters_macs_training_copies_and_state(tmp_path):
    assert below(printed(), TINY) == [
        f"{TINY}    78.8  93.6   4x3  28.2 M    88",
        "Kinetics-400, pre-trained on ImageNet-1K",
        "copies: official, innat, tfhub, torchvision, mmaction2; not here",
    ]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{TINY}.pth").write_bytes(b"x" * 2_000_000)
    assert below(printed(), TINY)[-1].endswith("mmaction2; cached: official 2 MB")


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_window_has_the_figures_below_each_name(width, tmp_path):
    lines = printed(width)
    assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []
    assert [line for line in lines if line.startswith("swin_")] == [weights.name for weights in all_published()]
    assert " ".join(below(lines, TINY)).startswith(f"{TINY} top-1 78.8, top-5 93.6, views 4x3, params 28.2 M, GMACs 88")
    assert below(lines, "swin_tiny_patch4_window7_224")[:2] == ["swin_tiny_patch4_window7_224", "params 28.3 M"]
    assert "Your own files: a folder, or the address" in " ".join(" ".join(lines).split())


def test_the_rows_below_a_name_say_what_is_special():
    lines = printed()
    assert [line.strip() for line in lines if "TF-Hub page" in line] == [
        "TF-Hub page: 96.6 % top-5",
        "TF-Hub page: pre-trained on ImageNet-12K",
        "TF-Hub page: the name swin_base_patch244_window877_kinetics600_1k",
        "TF-Hub page: pre-trained on ImageNet-1K",
    ]
    assert "TF-Hub page: 96.6 % top-5" in below(lines, "swin_base_patch244_window877_kinetics400_1k")
    assert below(lines, "swin_base_patch244_window1677_kinetics400_22k") == [
        "swin_base_patch244_window1677_kinetics400_22k                    89.1 M   320",
        "Kinetics-400, pre-trained on ImageNet-22K",
        "initial weights of the sthv2 recipe",
        "copies: official; not here",
    ]
    assert below(lines, "swin_base_patch4_window12_384_22k")[1:] == ["ImageNet-22K, for swin_base: not here"]
    rows = below(printed(show_sources=True), TINY)
    assert rows[3].startswith("official: https://github.com/SwinTransformer/storage/releases/download/v1.0.4/swin_tiny")
    assert rows[6] == (
        "torchvision: https://download.pytorch.org/models/swin3d_t-7615ae03.pth (77.715 % top-1, 93.519 % top-5; "
        "torchvision's own protocol: 12 views at 15 fps) sha256 7615ae03..."
    )


def test_records_are_json_and_complete(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{TINY}.pth").write_bytes(b"x" * 10)
    records = {record["name"]: record for record in json.loads(json.dumps(models_records()))}
    assert len(records) == 16
    tiny = records[TINY]
    assert (tiny["top1"], tiny["test_views"], tiny["gmacs"], tiny["parameters"]) == (78.8, "4x3", 87.8, 28_158_070)
    assert [source["name"] for source in tiny["sources"]] == ["official", "innat", "tfhub", "torchvision", "mmaction2"]
    path = str(tmp_path / "weights" / f"{TINY}.pth")
    assert tiny["local"] == [{"source": "official", "path": path, "num_bytes": 10, "is_cached": True}]
    assert records["swin_base_patch244_window877_kinetics400_1k"]["hub_page"]["top5"] == 96.6
    assert records["swin_tiny_patch4_window7_224"]["gmacs"] is None
    monkeypatch.setenv("VSWIN_WEIGHTS_DIR", "/nowhere")
    with pytest.raises(InputError, match="VSWIN_WEIGHTS_DIR=/nowhere"):
        models_records()


def test_the_table_in_a_pipe_is_plain_text_and_needs_no_tensorflow():
    code = (
        "import sys; from vswin.tools import models_table as m; m.print_models(); sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert TINY in done.stdout
