"""Tests of `vswin.bench.trace`: real profiles whose operations are known."""

import pytest
import tensorflow as tf

from vswin.bench.trace import NUM_RUNS, _self_times, trace
from vswin.errors import InputError


def test_a_profile_counts_the_operations_of_a_run_and_their_time(tmp_path):
    matrix = tf.random.stateless_normal([300, 300], [0, 0])

    @tf.function
    def run():
        return tf.reduce_sum(tf.sinh(tf.matmul(matrix, matrix)) @ matrix)

    run()
    for _ in range(2):  # the second replaces the first
        breakdown = trace(tmp_path / "profile", lambda: run().numpy(), floor_seconds=0.25)
    operations = {operation.name: operation for operation in breakdown.operations}
    # oneDNN's, where it is on, is `_MklMatMul`.
    (product,) = (operation for operation in breakdown.operations if operation.name.endswith("MatMul"))
    assert product.number == 2
    assert operations["Sinh"].number == 1
    assert breakdown.operations[0].seconds == max(operation.seconds for operation in breakdown.operations)
    assert 0 < product.seconds <= breakdown.wall_seconds
    assert breakdown.floor_seconds == 0.25
    assert NUM_RUNS > 1


def test_time_inside_another_operation_counts_once():
    events = [(0, 100, "Outer"), (10, 30, "Inner"), (30, 90, "Inner"), (40, 50, "Innermost"), (100, 120, "Next")]
    assert sorted(_self_times(events)) == [
        ("Inner", 20),
        ("Inner", 50),
        ("Innermost", 10),
        ("Next", 20),
        ("Outer", 20),
    ]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--trace .*file/profile: Not a directory; name a folder"):
        trace(tmp_path / "file" / "profile", lambda: None, 0.0)
