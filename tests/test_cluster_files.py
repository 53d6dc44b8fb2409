"""The files of docs/cluster, as far as a machine without Slurm and Kubernetes can run them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "docs" / "cluster"

# Starts two tasks on this host, as `srun --ntasks=2` does, and exits with the largest exit code.
SRUN = """#!{python}
import os, subprocess, sys
command = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
tasks = []
for rank in range(2):
    step = {{
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
    }}
    tasks.append(subprocess.Popen(command, env=os.environ | step))
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""


def test_pods_of_kubernetes_find_each_other():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert service["metadata"]["name"] == pod["subdomain"] == "vswin"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(container["env"][0]["value"])
    script = container["args"][0].partition("exec ")[0] + 'printf "%s" "$TF_CONFIG"'
    for index in range(2):
        environment = {"PATH": os.environ["PATH"], "WORKERS": "2", "JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run(
            [*container["command"], script], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == {
            "cluster": {"worker": ["vswin-0.vswin:12345", "vswin-1.vswin:12345"]},
            "task": {"type": "worker", "index": index},
        }


@pytest.fixture
def programs(tmp_path):
    """Makes stand-ins for srun and scontrol; scontrol records its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scontrol = f'#!/bin/sh\necho "$@" >> {tmp_path / "requeued.txt"}\n'
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", scontrol)):
        (folder / name).write_text(text)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IEXEC)
    return folder


def run_sbatch(programs, cwd, python, *overrides):
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(cwd),
        "PYTHON": python,
        "SLURM_JOB_ID": str(os.getpid()),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = ["bash", str(CLUSTER / "train.sbatch"), *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize(("code", "is_requeued"), [(0, False), (1, False), (138, True), (143, True)])
def test_a_job_that_was_stopped_by_a_signal_is_queued_again(programs, tmp_path, code, is_requeued):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    assert run_sbatch(programs, tmp_path, str(python)).returncode == code
    requeued = tmp_path / "requeued.txt"
    assert requeued.exists() == is_requeued
    if is_requeued:
        assert requeued.read_text() == f"requeue {os.getpid()}\n"


@pytest.mark.slow
def test_the_batch_file_trains_with_two_tasks(programs, tmp_path):
    for number in range(12):
        folder = tmp_path / "videos" / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(folder / f"{number}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40))
        for t in range(8):
            writer.write(np.full((40, 48, 3), 20 * number + t, np.uint8))
        writer.release()
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    tiny = ["model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,2]"]
    clip = ["clip=8x1_64px", "clip.num_frames=4", "clip.crop=32", "clip.resize=32", "batch_size=4", "epochs=1"]
    data = ["dataset=folder", f"dataset.root={tmp_path / 'videos'}", "output_dir=run"]
    done = run_sbatch(programs, tmp_path, sys.executable, *tiny, *clip, *data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker 1 of 2 (Slurm)" in done.stdout
    assert "2 workers, each with CPU" in (tmp_path / "run" / "train.log").read_text()
    assert (tmp_path / "run" / "train.worker1.log").exists()
    assert not (tmp_path / "requeued.txt").exists()
