import math

import pytest

from vswin.runs.files import read_run
from vswin.runs.pairs import Pair, compare_pair, compare_pairs, list_notes, say_pair
from vswin.runs.statistics import difference_interval

PATHS = [f"/data/videos/{name}.mp4" for name in "abcdefghij"]


@pytest.fixture
def read(make_run):
    def make(label, **contents):
        return read_run(label, label, make_run(label, **contents))

    return make


def test_known_numbers(read):
    first = read("a", hits="1" * 60 + "0" * 20 + "1" * 4 + "0" * 16)
    second = read("b", hits="1" * 60 + "1" * 20 + "0" * 4 + "0" * 16)
    pair = compare_pair(first, second)
    assert (pair.num_videos, pair.num_both, pair.num_only_first, pair.num_only_second) == (100, 60, 4, 20)
    assert pair.difference == pytest.approx(0.16)
    by_hand = 2 * sum(math.comb(24, k) for k in range(5)) / 2**24
    assert pair.p_value == pytest.approx(by_hand)
    assert pair.notes == []
    pair = compare_pairs([first, second])[0]
    assert pair.interval == difference_interval(4, 20, 100)
    low, high = (100 * end for end in pair.interval)
    assert say_pair(pair) == (
        f"b is better than a by 16.0 points (95 % interval {low:.1f} to {high:.1f}, p = 0.0015, 100 videos)."
    )
    assert 4 < low < 10
    assert 22 < high < 27
    back = compare_pairs([second, first])[0]
    assert say_pair(back).startswith("a is worse than b by 16.0 points (95 % interval ")
    assert "-" not in say_pair(back)


def test_no_difference_that_so_few_videos_could_show(read):
    pair = compare_pairs([read("a", hits="1100110000"), read("b", hits="1111110000")])[0]
    assert say_pair(pair) == (
        "b and a: no difference that 10 videos could show (b - a: +20.0 points, 95 % interval -16.6 to +51.0, p = 0.5)."
    )


def test_runs_that_agree_on_every_video(read):
    pair = compare_pairs([read("a", hits="110"), read("b", hits="110")])[0]
    assert say_pair(pair) == "b and a: no difference, right and wrong on the same 3 videos."


def test_several_tests_are_corrected_and_the_first_run_stays_the_one_that_is_compared_with(read):
    hits = {"a": "0" * 9 + "1", "b": "1" * 8 + "01", "c": "1" * 6 + "0001", "e": "0" * 10}
    runs = [read("d", top1=[0.5]), *(read(label, hits=text) for label, text in hits.items())]
    refused = compare_pairs(runs)
    assert [(pair.first, pair.second) for pair in refused] == [("d", "a"), ("d", "b"), ("d", "c"), ("d", "e")]
    assert say_pair(refused[0]) == (
        "a and d cannot be compared: d has no predictions.csv; evaluate d, name another run first, or compare each "
        "with each (--all-pairs)."
    )
    pairs = compare_pairs([*runs[1:], runs[0]])
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("a", "e")]
    assert [pair.p_value for pair in pairs] == [2 / 2**8, 2 / 2**6, 1.0]
    assert [pair.corrected_p for pair in pairs] == pytest.approx([3 * 2 / 2**8, 3 * 2 / 2**6, 1.0])
    # Compared alone, the run would be significantly better: p = 0.031 and an interval without 0.
    assert "no difference" in say_pair(pairs[1])
    assert pairs[1].interval[0] < 0 < compare_pairs(runs[1:4:2])[0].interval[0]
    every = [(pair.first, pair.second) for pair in compare_pairs(runs, is_all=True)]
    assert every == [("a", "b"), ("a", "c"), ("a", "e"), ("b", "c"), ("b", "e"), ("c", "e")]
    assert [bool(pair.problem) for pair in compare_pairs(runs[:2])] == [True]
    assert compare_pairs(runs[:1]) == []


def test_p_values_as_papers_write_them():
    pair = {"num_videos": 100, "num_only_second": 30, "interval": (0.1, 0.5)}
    values = {1.0: "p = 1,", 0.451: "p = 0.45,", 0.049: "p = 0.049,", 0.00099: "p < 0.001,", 0.0: "p < 0.001,"}
    for value, words in values.items():
        assert words in say_pair(Pair("a", "b", corrected_p=value, **pair))


def test_videos_are_matched_whatever_their_order_and_missing_ones_counted(read):
    labels = ["Ärmel"] * 10
    first = read("a", hits="1111100000"[:8], paths=PATHS[:8], labels=labels[:8])
    second = read("b", hits="001100000", paths=PATHS[:0:-1], labels=labels[:9])
    pair = compare_pair(first, second)
    # Both runs have b to h; the first is right on b c d e, the second (listed j to b) on h and g.
    assert (pair.num_videos, pair.num_only_first, pair.num_only_second, pair.num_both) == (7, 4, 2, 0)
    assert list_notes(pair)[0] == "the test sets differ: left out 1 video that only a has and 2 videos that only b has"


def test_a_video_that_is_listed_twice_counts_twice(read):
    paths, labels = [PATHS[0], PATHS[0], PATHS[1]], ["Ärmel"] * 3
    pair = compare_pair(
        read("a", hits="110", paths=paths, labels=labels), read("b", hits="011", paths=paths, labels=labels)
    )
    assert (pair.num_videos, pair.num_only_first, pair.num_only_second) == (3, 1, 1)


def test_the_same_videos_elsewhere(read):
    moved = [path.replace("/data/videos", "/mnt/other") for path in PATHS]
    dataset = {"name": "folder", "root": "/mnt/other/", "split": None, "list_hash": "1" * 16}
    first = read("a", hits="1111100000", paths=PATHS)
    pair = compare_pair(first, read("b", hits="1111100000", paths=moved, protocol={"dataset": dataset}))
    assert pair.num_videos == 10
    assert pair.notes == ["videos are matched by their paths below /data/videos and /mnt/other/"]
    flat = [f"packed/{path.rpartition('/')[2]}" for path in PATHS]
    same_list = {**dataset, "list_hash": "0" * 16}
    pair = compare_pair(first, read("c", hits="1111100000", paths=flat, protocol={"dataset": same_list}))
    assert pair.num_videos == 10
    assert pair.notes == ["videos are matched by their names without folders, the lists being the same"]
    pair = compare_pair(first, read("d", hits="1111100000", paths=flat, protocol={"dataset": dataset}))
    assert say_pair(pair) == "d and a cannot be compared: they have no test video in common."


def test_other_labels_are_refused(read):
    first = read("a", hits="11", paths=PATHS[:2], labels=["Ärmel", "Ärmel"])
    second = read("b", hits="11", paths=PATHS[:2], labels=["Ärmel", "run [fast]"])
    assert compare_pair(first, second).problem == (
        "1 of 2 videos have other labels, e.g. /data/videos/b.mp4 is Ärmel in a and run [fast] in b"
    )


def test_other_classes_are_refused_though_the_videos_are_the_same(read):
    first = read("a", hits="11", labels=["x", "y"], classes=["x", "y"])
    second = read("b", hits="11", labels=["x", "y"], classes=["x", "y", "z"])
    assert compare_pair(first, second).problem == "they chose among other classes (2 and 3; not in both: z)"
    refused = compare_pairs([first, second, read("c", hits="00", labels=["x", "y"], classes=["y", "x"])])
    assert [bool(pair.problem) for pair in refused] == [True, False]
    assert refused[1].corrected_p == refused[1].p_value


def test_other_protocols_and_bad_videos_are_named(read):
    first = read("a", hits="1110")
    second = read("b", hits="11xx", protocol={"num_clips": 10, "average": "score"})
    assert compare_pair(first, second).notes == [
        "tested differently: num_clips 4 and 10, average prob and score (a and b)",
        "2 videos that b could not decode count as wrong",
    ]
    (second.folder / "metrics.json").unlink()
    assert compare_pair(first, read_run("b", "b", second.folder)).notes[0] == (
        "how b was tested is not known (no protocol in metrics.json)"
    )
