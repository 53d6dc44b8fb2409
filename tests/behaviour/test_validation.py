"""What validation during training measures, and how much memory it takes."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score, recall_score

import vswin
from vswin.training.run import run_training

ROOT = Path(__file__).parents[2]
CLIP = {"num_frames": 4, "frame_stride": 1, "resize": 32, "crop": 32}
TINY = (
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
    *(f"clip.{key}={value}" for key, value in CLIP.items()),
    *("dataset=folder", "batch_size=8", "epochs=1", "init_from=null", "logger.tensorboard=false"),
    *("dataset.max_bad_share=0.2", "optimizer.warmup_epochs=0", "optimizer.learning_rate=0.05"),
)
# Training smooths and mixes labels and erases parts of clips.
STRONG = ("augment.label_smoothing=0.5", "augment.mixup=0.8", "augment.cutmix=1", "augment.erasing=0.5")
NUM_VAL = 5


@pytest.fixture
def lists(small_videos):
    """Lists eight videos for training and five for validation, the last of which cannot be decoded."""
    videos = sorted(small_videos.glob("*/*.avi"))
    (small_videos / "dark" / "broken.avi").write_bytes(b"nothing")
    val = [*videos[: NUM_VAL - 1], small_videos / "dark" / "broken.avi"]
    for name, paths in (("train", videos[:2] + videos[6:]), ("val", val)):
        lines = [f"{path} {path.parent.name}" for path in paths]
        (small_videos / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tuple(f"dataset.{name}_list={small_videos / name}.txt" for name in ("train", "val"))


@pytest.fixture
def train(compose_train, lists, tmp_path):
    """Trains a tiny model for an epoch; returns its metrics from `history.csv`."""

    def run(name, *overrides):
        run_training(compose_train(*TINY, *lists, f"output_dir={tmp_path / name}", *overrides))
        rows = list(csv.DictReader((tmp_path / name / "history.csv").read_text().splitlines()))
        return {key: float(value) for key, value in rows[-1].items() if key.startswith("val_")}

    return run


def measure_by_hand(weights, lists):
    """Computes top-1, and over the videos that can be decoded the loss, the balanced accuracy and the macro F1."""
    size = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": (2, 2, 3)}
    model, probabilities, labels, predicted = vswin.build_model(size, 2, weights=weights), [], [], []
    for line in Path(lists[1].partition("=")[2]).read_text().splitlines()[: NUM_VAL - 1]:
        path, label = line.split()
        logits = model(vswin.load_views(path, num_clips=1, num_crops=1, **CLIP))  # [1, 2]
        labels.append(["bright", "dark"].index(label))
        probabilities.append(tf.nn.softmax(logits).numpy()[0, labels[-1]])
        predicted.append(int(np.argmax(logits)))
    of_classes = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    return {
        "loss": -np.mean(np.log(probabilities)),
        "top1": np.count_nonzero(np.array(probabilities) > 0.5) / NUM_VAL,
        "balanced_accuracy": recall_score(labels, predicted, **of_classes),
        "f1_macro": f1_score(labels, predicted, **of_classes),
    }


@pytest.mark.slow
def test_validation_is_of_plain_labels_and_the_same_in_micro_batches(train, lists, tmp_path, capsys):
    """Independent of how training changes labels; with padding, on two devices, for raw and averaged weights alike."""
    overrides = ("optimizer.ema_decay=0.5", "runtime.strategy=mirrored", "runtime.micro_batches=2")
    figures = train("run", *STRONG, *overrides)
    for prefix, name in (("val_", "best.safetensors"), ("val_ema_", "best_ema.safetensors")):
        expected = measure_by_hand(tmp_path / "run" / "checkpoints" / name, lists)
        assert {key: figures[prefix + key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert abs(figures["val_loss"] - figures["val_ema_loss"]) > 1e-3
    assert "GB for the 2 devices of this machine" in capsys.readouterr().out


@pytest.mark.slow
def test_validation_takes_no_more_memory_than_a_part_of_the_batch_needs(lists, tmp_path):
    """A linear probe: eight clips at once would need over half a gigabyte more, for raw and averaged weights each."""
    larger = ("clip.num_frames=32", "clip.resize=224", "clip.crop=224", "augment=none")
    probe = ("model=swin_micro", "model.freeze=[backbone.*]", "runtime.micro_batches=8", "optimizer.ema_decay=0.9")
    overrides = [*TINY[8:], *larger, *probe, *lists, f"output_dir={tmp_path / 'run'}"]
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=sys.stderr, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", measure, sys.executable, str(ROOT / "train.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit / 1e9 < 1.5
