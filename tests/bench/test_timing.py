"""Tests of `vswin.bench.timing`: who runs when, and what counts."""

import time

import pytest

from vswin.bench.timing import interleave, timed
from vswin.errors import InputError


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    log = []

    def contender(name, seconds):
        def run():
            log.append(name)
            return seconds + log.count(name)

        return run

    seconds = interleave({"a": contender("a", 0.0), "b": contender("b", 0.5)}, rounds=3, warm_up=2)
    assert log == ["a", "b"] * 5
    assert seconds == {"a": [3.0, 4.0, 5.0], "b": [3.5, 4.5, 5.5]}


def test_a_contender_of_this_process_takes_as_long_as_it_takes():
    assert 0.02 <= timed(lambda: time.sleep(0.02))() < 1


def test_without_a_round_there_is_nothing_to_time():
    with pytest.raises(InputError, match="--rounds 0: at least 1"):
        interleave({"a": lambda: 1.0}, rounds=0)
