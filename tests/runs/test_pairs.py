"""Tests of `vswin.runs.pairs`: statistics against slower methods, matching of videos, and the sentences."""

import math
from fractions import Fraction

import numpy as np
import pytest

from vswin.runs.files import read_run
from vswin.runs.pairs import Pair, compare_pair, compare_pairs, describe_pair, difference_interval, mcnemar_p

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
    assert describe_pair(pair) == (
        f"b is better than a by 16.0 points (95 % interval {low:.1f} to {high:.1f}, p = 0.0015, 100 videos)."
    )
    assert 4 < low < 10
    assert 22 < high < 27
    back = compare_pairs([second, first])[0]
    assert describe_pair(back).startswith("a is worse than b by 16.0 points (95 % interval ")
    assert "-" not in describe_pair(back)


@pytest.mark.parametrize(("p_value", "words"), [(1.0, "p = 1,"), (0.451, "p = 0.45,"), (0.00099, "p < 0.001,")])
def test_p_values_as_papers_write_them(p_value, words):
    assert words in describe_pair(Pair("a", "b", "", [], 100, 0, 0, 0, 30, 0, (0.1, 0.5), corrected_p=p_value))


def test_no_difference(read):
    pair = compare_pairs([read("a", hits="1100110000"), read("b", hits="1111110000")])[0]
    assert describe_pair(pair) == (
        "b and a: no difference that 10 videos could show (b - a: +20.0 points, 95 % interval -16.6 to +51.0, p = 0.5)."
    )
    pair = compare_pairs([read("c", hits="110"), read("d", hits="110")])[0]
    assert describe_pair(pair) == "d and c: no difference, right and wrong on the same 3 videos."


def test_several_tests_are_corrected_and_the_first_run_stays_the_one_that_is_compared_with(read):
    hits = {"a": "0" * 9 + "1", "b": "1" * 8 + "01", "c": "1" * 6 + "0001", "e": "0" * 10}
    runs = [read("d", top1=[0.5]), *(read(label, hits=text) for label, text in hits.items())]
    refused = compare_pairs(runs)
    assert [(pair.first, pair.second) for pair in refused] == [("d", "a"), ("d", "b"), ("d", "c"), ("d", "e")]
    assert describe_pair(refused[0]) == (
        "a and d cannot be compared: d has no predictions.csv; evaluate d, name another run first, or compare each "
        "with each (--all-pairs)."
    )
    pairs = compare_pairs([*runs[1:], runs[0]])
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("a", "e")]
    assert [pair.p_value for pair in pairs] == [2 / 2**8, 2 / 2**6, 1.0]
    assert [pair.corrected_p for pair in pairs] == pytest.approx([3 * 2 / 2**8, 3 * 2 / 2**6, 1.0])
    # Compared alone, the run would be significantly better: p = 0.031 and an interval without 0.
    assert "no difference" in describe_pair(pairs[1])
    assert pairs[1].interval[0] < 0 < compare_pairs(runs[1:4:2])[0].interval[0]
    every = [(pair.first, pair.second) for pair in compare_pairs(runs, is_all=True)]
    assert every == [("a", "b"), ("a", "c"), ("a", "e"), ("b", "c"), ("b", "e"), ("c", "e")]
    assert [bool(pair.problem) for pair in compare_pairs(runs[:2])] == [True]
    assert compare_pairs(runs[:1]) == []


def test_videos_are_matched_whatever_their_order_and_missing_ones_counted(read):
    labels = ["Ärmel"] * 10
    first = read("a", hits="1111100000"[:8], paths=PATHS[:8], labels=labels[:8])
    second = read("b", hits="001100000", paths=PATHS[:0:-1], labels=labels[:9])
    pair = compare_pair(first, second)
    # Both runs have b to h; the first is right on b c d e, the second (listed j to b) on h and g.
    assert (pair.num_videos, pair.num_only_first, pair.num_only_second, pair.num_both) == (7, 4, 2, 0)
    assert pair.notes[0] == "the test sets differ: left out 1 video that only a has and 2 videos that only b has"


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
    # Segments of one film are told apart, whatever their order.
    films = [[f"{folder}/film.mp4#t={number}.5,{number + 1}" for number in range(10)] for folder in ("/a", "/b")]
    labels, of_list = ["Ärmel"] * 10, {"dataset": same_list}
    one = read("e", hits="1111100000", paths=films[0], labels=labels, protocol=of_list)
    pair = compare_pair(one, read("f", hits="0000011111", paths=films[1][::-1], labels=labels, protocol=of_list))
    assert (pair.num_videos, pair.num_only_first, pair.num_only_second) == (10, 0, 0)
    pair = compare_pair(first, read("d", hits="1111100000", paths=flat, protocol={"dataset": dataset}))
    assert describe_pair(pair) == "d and a cannot be compared: they have no test video in common."


def test_other_labels_and_other_classes_are_refused(read):
    first = read("a", hits="11", paths=PATHS[:2], labels=["Ärmel", "Ärmel"])
    second = read("b", hits="11", paths=PATHS[:2], labels=["Ärmel", "run [fast]"])
    assert compare_pair(first, second).problem == (
        "1 of 2 videos have other labels, e.g. /data/videos/b.mp4 is Ärmel in a and run [fast] in b"
    )
    classes = {"c": ["x", "y"], "d": ["x", "y", "z"], "e": ["y", "x"]}
    runs = [read(label, hits="11", labels=["x", "y"], classes=names) for label, names in classes.items()]
    refused, tested = compare_pairs(runs)
    assert refused.problem == "they chose among other classes (2 and 3; not in both: z)"
    assert not tested.problem
    assert tested.corrected_p == tested.p_value


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


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # one coin proves nothing
        (0, 5, 2 / 32),
        (1, 9, 2 * (1 + 10) / 1024),
        (3, 7, 2 * (1 + 10 + 45 + 120) / 1024),
        (5, 5, 1.0),
        (0, 5_000, 0.0),  # 2 to the power of -4999, too small for a float
    ],
)
def test_mcnemar_by_hand(first, second, p_value):
    assert mcnemar_p(first, second) == pytest.approx(p_value, rel=1e-9)
    assert mcnemar_p(second, first) == mcnemar_p(first, second)


def test_mcnemar_is_the_sum_of_all_outcomes_that_are_at_most_as_likely():
    for count in range(1, 40):
        chances = [Fraction(math.comb(count, k), 2**count) for k in range(count + 1)]
        for first in range(count + 1):
            expected = sum(chance for chance in chances if chance <= chances[first])
            assert mcnemar_p(first, count - first) == pytest.approx(float(expected), rel=1e-12)
    assert mcnemar_p(9_000, 11_000) == pytest.approx(math.erfc(1_999 / math.sqrt(20_000) / math.sqrt(2)), rel=0.02)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(7)
    for share, surplus, num_videos in ((0.05, 0.0, 200), (0.3, 0.8, 100), (0.5, 0.9, 2_000)):
        kinds = [share * (1 - surplus) / 2, share * (1 + surplus) / 2, 1 - share]
        draws = rng.multinomial(num_videos, kinds, 300).tolist()
        intervals = [difference_interval(first, second, num_videos) for first, second, _ in draws]
        assert np.mean([low <= share * surplus <= high for low, high in intervals]) >= 0.93
        # And it is hardly wider than the mean plus and minus 1.96 standard errors.
        error = math.sqrt((share - (share * surplus) ** 2) / num_videos)
        assert np.mean([high - low for low, high in intervals]) < 1.1 * 2 * 1.96 * error


def test_the_interval_turns_with_the_pair_and_stays_within_what_is_possible():
    low, high = difference_interval(30, 70, 1_000)
    assert difference_interval(70, 30, 1_000) == (-high, -low)
    low, high = difference_interval(0, 0, 10)
    assert -low == high == pytest.approx(0.28, abs=0.01)  # no difference in ten videos
    low, high = difference_interval(0, 10, 10)
    assert (low > 0.2, high) == (True, 1.0)
