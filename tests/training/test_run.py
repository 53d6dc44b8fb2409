"""Small runs on real files, in this process: what they write, resume and refuse."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vswin.errors import InputError
from vswin.training.run import run_training
from vswin.weights.checkpoint import open_checkpoint

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=[2,2,3]",
    "model.drop_path_rate=0.2",
    "model.dropout=0.3",
    "dataset=folder",
    "clip.num_frames=4",
    "clip.resize=32",
    "clip.crop=32",
    "batch_size=4",
    "epochs=3",
    "optimizer.warmup_epochs=1",
)


@pytest.fixture
def start(compose_train, small_videos, tmp_path):
    """Trains the tiny model on the small videos with further overrides."""

    def run(*overrides: str, output: str = "run"):
        return run_training(
            compose_train(*TINY, f"dataset.root={small_videos}", f"output_dir={tmp_path / output}", *overrides)
        )

    return run


def read_weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "checkpoints" / "best.safetensors")


def test_a_run_writes_its_files_and_says_what_it_does(start, tmp_path, capsys):
    history = start()
    run = tmp_path / "run"
    assert len(history["val_top1"]) == 3
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["val_loss"]) == pytest.approx(history["val_loss"][2])
    assert {"loss", "top1", "val_top1", "val_f1_macro", "learning_rate", "clips_per_sec"} <= rows[0].keys()
    # Of two classes, top-5 says nothing.
    assert not {"top5", "val_top5"} & rows[0].keys()
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Tensors("val/top1")] == [1, 2, 3]
    logged = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("train/loss")]
    assert logged == pytest.approx([float(row["loss"]) for row in rows])
    (shown,) = tf.make_ndarray(events.Tensors("config")[0].tensor_proto).ravel()
    assert '"epochs": 3' in shown.decode()
    assert read_weights(run)["cls_head.fc_cls.weight"].shape == (2, 16)
    printed = capsys.readouterr().out
    for words in ("2 classes, 10 training videos, 2 validation videos", "every weight is random", "3 steps per epoch"):
        assert words in printed
    assert f"vswin evaluate run={run}" in printed
    log = (run / "train.log").read_text()
    assert log.count("train loss") == 3
    assert log.count("best epoch") == 1


def test_a_partly_frozen_run_with_an_average_says_what_it_trains(start, tmp_path, capsys):
    start("model.freeze_stages=1", "optimizer.layer_decay=0.5", "optimizer.ema_decay=0.9")
    run = tmp_path / "run"
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert {"val_ema_loss", "val_ema_top1", "val_ema_f1_macro"} < rows[0].keys()
    rates = [float(rows[2][f"lr_{group}"]) for group in ("head", "backbone", "bias_tables")]
    assert rates == pytest.approx([float(rows[2]["learning_rate"]) * share for share in (1, 1, 0.5)])
    output = capsys.readouterr().out
    for words in ("RANDOM WEIGHTS are frozen", "frozen ", "parameters are trained", "group   ", "averaged top-1 "):
        assert words in output
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert len(events.Tensors("val/ema_top1")) == 3
    average, raw = open_checkpoint(run / "checkpoints" / "best_ema.safetensors"), read_weights(run)
    assert average.metadata["val_top1"] == max(float(row["val_ema_top1"]) for row in rows)
    for name, tensor in average.tensors.items():
        is_frozen = name.startswith(("backbone.patch_embed.", "backbone.layers.0."))
        assert np.array_equal(tensor, raw[name]) == is_frozen, name


def test_a_pattern_that_matches_no_weight_is_an_error_before_anything_is_written(start, tmp_path):
    with pytest.raises(InputError, match=r"model\.freeze: 'backbone\.stages\.\*' matches no weight; did you mean"):
        start("model.freeze=[backbone.stages.*]")
    assert not (tmp_path / "run").exists()


def test_a_run_that_stopped_early_resumes_to_nothing(start, capsys):
    overrides = ("epochs=8", "patience=1", "optimizer.learning_rate=0", "optimizer.warmup_epochs=0")
    start(*overrides)
    assert start(*overrides, "resume=true") == {}
    assert "the run is complete, stopped early" in capsys.readouterr().out


@pytest.mark.slow
def test_fine_tuning_from_a_run_replaces_a_head_of_another_size(start, tmp_path, capsys):
    start("epochs=1")
    third = tmp_path / "videos" / "grey"
    third.mkdir()
    for path in (tmp_path / "videos" / "dark").iterdir():
        (third / path.name).write_bytes(path.read_bytes())
    start("epochs=1", f"init_from={tmp_path / 'run'}", output="second")
    printed = capsys.readouterr().out
    assert "re-initialised    2  a head of 2 classes, for 3: cls_head.fc_cls.weight, cls_head.fc_cls.bias" in printed


def test_bad_videos_keep_their_slots_and_are_listed(start, small_videos, tmp_path, capsys):
    (small_videos / "dark" / "broken.avi").write_bytes(b"not a video")
    start("epochs=1", "dataset.max_bad_share=0.2", "dataset.val_fraction=0.2")
    rows = list(csv.DictReader((tmp_path / "run" / "bad_videos.csv").read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == ["broken.avi"]
    assert "1 of 13 videos could not be decoded" in capsys.readouterr().out


def test_the_folder_of_another_run_is_refused(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("precious: true\n")
    with pytest.raises(InputError, match="holds another run"):
        start()
    assert (tmp_path / "run" / "config.yaml").read_text() == "precious: true\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_folder_with_other_files_is_refused(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not the folder of a run"):
        start()


def test_weights_that_are_missing_are_an_error_before_anything_is_written(start, tmp_path):
    with pytest.raises(InputError, match="init_from=null"):
        start("init_from=swin_tiny_patch244_window877_kinetics400_1k")
    assert not (tmp_path / "run").exists()
