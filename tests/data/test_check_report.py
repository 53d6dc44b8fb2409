"""Tests of vswin.data.check_report: what is printed and written."""

import io

import pytest
from rich.console import Console

from vswin.data.catalog import Catalog
from vswin.data.check_files import FileFacts
from vswin.data.check_findings import Finding
from vswin.data.check_report import print_findings, print_summary, write_clean_lists, write_report
from vswin.data.records import VideoRecord

GOOD = FileFacts(2_000_000, 99, 240, 320)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=80, highlight=False)


def rows_of(console):
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_summary(console, compose_train):
    catalog = Catalog(("hop", "run [fast]"), [VideoRecord("a", 0), VideoRecord("b", 1)], [VideoRecord("c", 1)])
    facts = {"a": GOOD, "b": FileFacts(5, reason="empty"), "c": GOOD._replace(num_bytes=3 * 10**9)}
    print_summary(console, compose_train("dataset=folder").dataset, catalog, facts)
    assert rows_of(console) == [
        "                  training             validation",
        "listed            2                    1",
        "there             2                    1",
        "usable            1                    1",
        "size on disk      2.0 MB               3.0 GB",
        "frames            99                   99",
        "frames per video  99 to 99, median 99  99 to 99, median 99",
        "usual frame       320 x 240 (100%)     320 x 240 (100%)",
        "smallest class    1 (hop)              0 (hop)",
        "median class      1                    0",
        "largest class     1 (hop)              1 (run [fast])",
    ]


def test_the_summary_of_a_validation_set_without_usable_files(console, compose_train):
    catalog = Catalog(("hop", "run"), [], [VideoRecord("c", 1)])
    print_summary(console, compose_train("dataset=sthv2").dataset, catalog, {})
    assert rows_of(console)[:4] == [
        "                validation",
        "listed          1 (-24,776 to the official 24,777)",
        "there           1",
        "usable          0",
    ]


def test_the_first_findings_of_each_kind(console):
    findings = [Finding("broken", "train", "hop", f"/data/v/hop/[b]{number}.mp4", "empty") for number in range(1234)]
    findings.append(Finding("empty class", "val", "run", "", "no validation videos"))
    findings.append(Finding("short", "val", "run", "/data/vid/x.mp4", "5 frames"))
    print_findings(console, findings, "/data/v")
    assert rows_of(console) == [
        "broken: 1,234",
        "  hop/[b]0.mp4: empty",
        "  hop/[b]1.mp4: empty",
        "  hop/[b]2.mp4: empty",
        "  and 1,231 more",
        "empty class: 1",
        "  run: no validation videos",
        "short: 1",
        "  /data/vid/x.mp4: 5 frames",
    ]


def test_the_report_is_replaced_whole(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("older and longer\n" * 9)
    write_report(path, [Finding("broken", "train", 'say "hop"', "a, b.mp4", "empty")])
    assert path.read_text() == 'kind,subset,class,path,detail\nbroken,train,"say ""hop""","a, b.mp4",empty\n'
    assert [file.name for file in tmp_path.iterdir()] == ["r.csv"]


def test_clean_lists(tmp_path):
    root = tmp_path / "v"
    train = [VideoRecord(f"{root}/hop, a.mp4", 0), VideoRecord("/elsewhere/b.mp4", 1), VideoRecord(f"{root}/c.mp4", 1)]
    facts = {video.path: GOOD for video in train} | {f"{root}/c.mp4": FileFacts(0, reason="empty")}
    written = write_clean_lists(tmp_path / "lists", Catalog(("hop", "run"), train, []), facts, str(root))
    assert written == [tmp_path / "lists" / "train.csv"]
    assert written[0].read_text() == 'path,label\n"hop, a.mp4",hop\n/elsewhere/b.mp4,run\n'


def test_classes_that_are_numbers_are_written_as_indices(tmp_path):
    catalog = Catalog(("1", "10", "2"), [VideoRecord("a.mp4", 1), VideoRecord("b.mp4", 2)], [])
    (path,) = write_clean_lists(tmp_path, catalog, {"a.mp4": GOOD, "b.mp4": GOOD}, "/data")
    assert [line.rsplit(",")[-1] for line in path.read_text().split()] == ["label", "1", "2"]


def test_a_subset_without_usable_videos_has_no_list(tmp_path):
    catalog = Catalog(("hop", "run"), [VideoRecord("a.mp4", 1)], [])
    assert write_clean_lists(tmp_path, catalog, {"a.mp4": FileFacts(0, reason="empty")}, "/data") == []
