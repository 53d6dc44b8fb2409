"""Tests of `vswin.cluster`: how it reads the environments of real launchers."""

import json
from types import SimpleNamespace

import pytest
import tensorflow as tf

from vswin.cluster import Cluster, Workers, count_slurm_gpus, expand_counts, expand_hosts, find_cluster, share_gpus
from vswin.errors import InputError

# The variables of task 3 under `srun --nodes=3 --ntasks=5 --gpus-per-node=4`, shortened to those that matter.
SLURM = {
    "SLURM_CLUSTER_NAME": "hpc",
    "SLURM_DISTRIBUTION": "block",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_GTIDS": "2,3",
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[9-11]",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_STEP_GPUS": "0,1,2,3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[9-11]",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_TASKS_PER_NODE": "2(x2),1",
}


def tf_config(jobs, task, index):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": task, "index": index}})}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("localhost", ["localhost"]),
        ("gpu[08-10,12],login1", ["gpu08", "gpu09", "gpu10", "gpu12", "login1"]),
        ("n9,n10", ["n9", "n10"]),
        ("r[1-2]n[1-2]-ib", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"]),
        ("a-b-[099-101].x.org", ["a-b-099.x.org", "a-b-100.x.org", "a-b-101.x.org"]),
    ],
)
def test_lists_of_hosts(hosts, expected):
    assert expand_hosts(hosts) == expected


@pytest.mark.parametrize("hosts", ["", "n[1-", "n]", "n[a-b]", "n[1-2-3]"])
def test_what_is_no_list_of_hosts(hosts):
    with pytest.raises(InputError, match="SLURM_STEP_NODELIST"):
        expand_hosts(hosts)


def test_counts_of_tasks():
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    with pytest.raises(InputError, match=r"SLURM_STEP_TASKS_PER_NODE='2\(3\)'"):
        expand_counts("2(3)")


def test_a_slurm_step():
    cluster = find_cluster(SLURM)
    hosts = [address.split(":")[0] for address in cluster.addresses]
    # In the order of the ranks, n9 before n10.
    assert hosts == ["gpu9", "gpu9", "gpu10", "gpu10", "gpu11"]
    assert len(set(cluster.addresses)) == 5
    assert (cluster.rank, cluster.local_rank, cluster.num_local) == (3, 1, 2)
    config = json.loads(cluster.tf_config)
    assert config["cluster"]["worker"][3] == cluster.addresses[3]
    assert config["task"] == {"type": "worker", "index": 3}
    for rank, local in enumerate([0, 1, 0, 1, 0]):
        other = find_cluster(SLURM | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local)})
        assert other.addresses == cluster.addresses
    ports = find_cluster(SLURM | {"VSWIN_PORT": "9000"}).addresses
    assert ports == ("gpu9:9000", "gpu9:9001", "gpu10:9000", "gpu10:9001", "gpu11:9000")
    # Jobs on the same hosts have ports of their own.
    assert not set(find_cluster(SLURM).addresses) & set(find_cluster(SLURM | {"SLURM_JOB_ID": "4719"}).addresses)


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_NUM_TASKS": "1"},
        # A batch script that calls Python without srun: a job of five tasks without a step.
        {name: "" for name in SLURM if name.startswith("SLURM_STEP")},
    ],
)
def test_one_process_under_slurm_works_by_itself(changes):
    environment = {name: value for name, value in (SLURM | changes).items() if value}
    assert find_cluster(environment) is None
    assert find_cluster({}) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, "contradict each other: 5 tasks"),
        ({"SLURM_PROCID": "5"}, "SLURM_PROCID=5"),
        ({"SLURM_LOCALID": "0"}, "srun --distribution=block"),
        ({"SLURM_STEP_NODELIST": "gpu[9-11"}, "is no list of hosts"),
        ({"SLURM_PROCID": "x"}, "incomplete"),
    ],
)
def test_slurm_variables_that_do_not_fit(changes, words):
    with pytest.raises(InputError, match=words):
        find_cluster(SLURM | changes)
    rest = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}
    with pytest.raises(InputError, match="incomplete: 'SLURM_STEP_NODELIST'"):
        find_cluster(rest)


def test_tf_config_with_and_without_a_chief():
    workers = ["a:1", "a:2", "b:1"]
    cluster = find_cluster(tf_config({"worker": workers}, "worker", 1))
    assert cluster == Cluster(tuple(workers), 1, 1, 2, "TF_CONFIG")
    with_chief = find_cluster(tf_config({"chief": ["a:1"], "worker": ["a:2", "b:1"]}, "worker", 1))
    assert with_chief == Cluster(tuple(workers), 2, 0, 1, "TF_CONFIG")
    assert find_cluster(tf_config({"chief": ["a:1"], "worker": ["a:2"]}, "chief", 0)).rank == 0
    assert find_cluster(tf_config({"worker": ["a:1"]}, "worker", 0)) is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TF_CONFIG": '{"cluster": {}}'}, "does not describe a worker"),
        (tf_config({"worker": ["a:1"]}, "worker", 1), "does not describe a worker"),
        (tf_config({"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "worker", 1), "TF_CONFIG names ps"),
    ],
)
def test_a_tf_config_that_does_not_fit(environment, words):
    with pytest.raises(InputError, match=words):
        find_cluster(environment)


def test_workers_of_a_host_share_its_gpus_unless_each_has_been_given_its_own():
    gpus = ["gpu0", "gpu1", "gpu2", "gpu3"]
    cluster = find_cluster(SLURM)
    assert count_slurm_gpus(SLURM) == 4
    assert share_gpus(gpus, cluster, 4) == ["gpu2", "gpu3"]
    assert share_gpus(gpus[:2], cluster, 4) == ["gpu0", "gpu1"]
    alone = find_cluster(SLURM | {"SLURM_PROCID": "4", "SLURM_LOCALID": "0"})
    assert share_gpus(gpus, alone, 4) == gpus
    assert share_gpus([], cluster, None) == []
    with pytest.raises(InputError, match="2 tasks on this host cannot share its 3 GPUs"):
        share_gpus(gpus[:3], cluster, 3)


def test_what_slurm_says_of_gpus():
    assert count_slurm_gpus({"SLURM_STEP_GPUS": "0,2"}) == 2
    assert count_slurm_gpus({"SLURM_GPUS_ON_NODE": "8"}) == 8
    assert count_slurm_gpus({"SLURM_GPUS_ON_NODE": "gpu:8"}) is None
    assert count_slurm_gpus({}) is None


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([1], "worker 1 (b:1) has gone or cannot be reached; "),
        # Only the chief hears of all workers at once, as when its own link is down.
        (
            [2, 1],
            "worker 1 (b:1) and worker 2 (c:1) have gone or cannot be reached, or this machine has lost its network",
        ),
    ],
)
def test_the_chief_names_the_workers_that_it_cannot_reach(lost, said):
    """The error is the one of TensorFlow 2.21 on a chief whose link was taken down."""
    spec = tf.train.ClusterSpec({"worker": ["a:1", "b:1", "c:1"]})
    resolver = SimpleNamespace(cluster_spec=lambda: spec, task_type="worker", task_id=0)
    tasks = "\n".join(f"/job:worker/replica:0/task:{rank}" for rank in lost)
    error = tf.errors.UnavailableError(
        None,
        None,
        f"Collective ops is aborted by: Error reported from /job:worker/task:{lost[0]}: The following tasks are "
        f"unhealthy (stopped sending heartbeats):\n{tasks}\nThe tasks have crashed. Check the task logs",
    )
    assert Workers(SimpleNamespace(cluster_resolver=resolver)).describe_loss(error).startswith(said)
