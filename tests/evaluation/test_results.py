"""Tests of `vswin.evaluation.results`: rows of the table, and the files around it."""

import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest

from vswin.errors import InputError
from vswin.evaluation.published import Comparison
from vswin.evaluation.results import append_result, format_results
from vswin.runs.metrics import Metrics, wilson_interval
from vswin.weights.published import find_published

BASE = "swin_base_patch244_window877_kinetics400_1k"
NOTE = "the TF-Hub page gives 96.6 % top-5 (official: 94.6 %): a slip of the page"
UNPUBLISHED = Comparison(None, "outputs/a is not the name of a published model")


def make_metrics(top1=0.8, top5=0.95, num_videos=19_796, num_bad_videos=0):
    return Metrics(
        top1=top1,
        top5=top5,
        top1_interval=wilson_interval(top1, num_videos),
        top5_interval=wilson_interval(top5, num_videos),
        mean_class_accuracy=0.79,
        clip_top1=0.75,
        clip_top5=0.93,
        num_videos=num_videos,
        num_bad_videos=num_bad_videos,
    )


def make_protocol(init_from=BASE, **changes):
    protocol = {
        "num_frames": 32,
        "frame_stride": 2,
        "resize": 224,
        "crop": 224,
        "num_clips": 4,
        "num_crops": 3,
        "sampling": "dense",
        "spacing": "centred",
        "average": "prob",
        "weights": {"init_from": init_from},
        "dataset": {"name": "kinetics400", "split": None, "num_missing": 0},
        "date": "2026-11-25T12:00:00+00:00",
    }
    return protocol | changes


def read_table(folder):
    lines = (folder / "results.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]


def test_a_row_beside_the_official_one(tmp_path):
    comparison = Comparison(find_published(BASE), note=NOTE)
    append_result(tmp_path / "new", make_metrics(), comparison, make_protocol(), Path("outputs/a"))
    headings, rule, row = read_table(tmp_path / "new")
    assert len(headings) == len(rule) == len(row)
    assert row == [
        "2026-11-25",
        BASE,
        "kinetics400",
        "19,796",
        "32x2, 4x3 views of 224 px",
        "80.00 (79.44 to 80.55)",
        "80.6",
        "-0.60",
        "below, but too few videos to tell",
        "95.00 (94.69 to 95.29)",
        "94.6 (TF-Hub page: 96.6)",
        "+0.40",
        "within ±0.5 points",
        "75.00",
    ]
    assert f"- {BASE}: {NOTE}" in (tmp_path / "new" / "results.md").read_text()
    (record,) = json.loads((tmp_path / "new" / "results.json").read_text())
    assert record["top5"]["hub_page"] == pytest.approx(0.966)
    assert (record["official"], record["report"], record["num_clips"]) == (BASE, "outputs/a", 4)


def test_rows_without_an_official_figure_say_why_once(tmp_path):
    dataset = {"name": "ucf101", "split": 2, "num_missing": 3}
    protocol = make_protocol("outputs/a|b", sampling="segments", average="score", dataset=dataset)
    for bad in (0, 4):
        append_result(tmp_path, make_metrics(num_bad_videos=bad), UNPUBLISHED, protocol, Path("outputs/a"))
    lines = (tmp_path / "results.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| 2026")]
    assert "| ucf101, split 2 | 19,796, 3 missing | 32 segments, 4x3 views of 224 px, logits averaged |" in rows[0]
    assert "| 19,796, 3 missing, 4 bad |" in rows[1]
    assert "outputs/a\\|b" in rows[0]
    assert [line for line in lines if line.startswith("- ")] == [f"- outputs/a\\|b on ucf101: {UNPUBLISHED.reason}"]


def test_clips_end_to_end_are_named():
    record = make_protocol(spacing="end_to_end") | {"num_videos": 5, "num_bad_videos": 0, "clip_top1": 0.5}
    accuracy = {"measured": 0.5, "interval": [0.4, 0.6]}
    record |= {"top1": accuracy, "top5": accuracy, "note": "", "no_official": ""}
    assert "32x2, 4x3 views of 224 px, end to end" in format_results([record])


def test_a_foreign_file_is_left_as_it_is(tmp_path):
    for text in ("not json", "{}"):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(InputError, match=r"results\.json is no table of vswin.*left as it is"):
            append_result(tmp_path, make_metrics(), UNPUBLISHED, make_protocol(), Path("outputs/a"))
        assert (tmp_path / "results.json").read_text() == text


def test_a_folder_that_cannot_be_written_is_named_and_the_report_is_safe(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"stands in outputs/a, but the table in results_dir=.*file.* null for no table"
    ):
        append_result(tmp_path / "file", make_metrics(), UNPUBLISHED, make_protocol(), Path("outputs/a"))


def append_ten(folder, worker):
    for number in range(10):
        metrics = dataclasses.replace(make_metrics(), num_bad_videos=10 * worker + number)
        append_result(folder, metrics, UNPUBLISHED, make_protocol(), Path("outputs/a"))


def test_processes_at_the_same_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_ten, args=(tmp_path, worker)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = json.loads((tmp_path / "results.json").read_text())
    assert sorted(record["num_bad_videos"] for record in records) == list(range(20))
