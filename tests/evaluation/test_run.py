"""Tests of `vswin.evaluation.run` on real files with a tiny model."""

import csv
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import vswin
from vswin.errors import InputError
from vswin.evaluation import views as evaluation_views
from vswin.evaluation.run import run_evaluation
from vswin.models.zoo import find_size
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

CLASSES = ["dark", "light", "middle"]
VAL_VIDEOS = ["dark/a", "dark/b", "light/a", "light/b", "light/c", "middle/a", "middle/b"]
SIZE = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": (2, 2, 2)}
NETWORK = ("model=swin_micro", "model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]")
NETWORK += ("model.window_size=[2,2,2]",)
CLIPS = ("clip.num_frames=4", "clip.frame_stride=1", "clip.resize=32", "clip.crop=32", "clip.num_clips=2")
CLIPS += ("clip.num_crops=3", "clip.sampling=dense", "clip.views_per_step=4")


def write_video(path, seed):
    """Writes nine frames of 40 x 48 px with a moving gradient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40))
    ramp = np.arange(48 * 40).reshape(40, 48, 1) // 20
    for t in range(9):
        writer.write(((ramp + 30 * seed + 5 * t) % 256 * np.ones(3)).astype(np.uint8))
    writer.release()


@pytest.fixture
def videos(tmp_path):
    """Makes a folder with a training and a validation split of three classes."""
    root = tmp_path / "videos"
    for seed, name in enumerate(VAL_VIDEOS):
        write_video(root / "val" / f"{name}.avi", seed)
    for name in CLASSES:
        write_video(root / "train" / name / "z.avi", 9)
    return root


@pytest.fixture
def model():
    tf.random.set_seed(1)
    return make_model(3)


def make_model(num_classes):
    return vswin.build_model(dataclasses.replace(find_size("swin_micro"), **SIZE), num_classes=num_classes)


def save(model, path, class_names=tuple(CLASSES), **changed):
    """Saves a model with replaced weights; in their names `__` stands for the dot."""
    tensors = official_tensors(model)
    for name, value in changed.items():
        key = name.replace("__", ".")
        tensors[key] = np.broadcast_to(np.array(value, "f4"), tensors[key].shape).copy()
    save_checkpoint(path, tensors, {"class_names": list(class_names)})
    return path


def save_constant(model, path):
    """Saves a model that ranks `light`, `middle`, `dark` for every video."""
    return save(model, path, cls_head__fc_cls__weight=0, cls_head__fc_cls__bias=[0, 2, 1])


@pytest.fixture
def make_config(tmp_path, videos, compose_evaluate):
    """Composes an evaluation of the videos; `weights` None means random weights."""

    def make(weights, *overrides):
        folders = (f"dataset.root={videos}", f"output_dir={tmp_path / 'report'}", f"results_dir={tmp_path / 'results'}")
        init_from = "null" if weights is None else weights
        given = ("dataset=folder", f"init_from={init_from}", *NETWORK, *CLIPS, *folders, "batch_size=2")
        keys = {override.partition("=")[0] for override in overrides}
        return compose_evaluate(*(word for word in given if word.partition("=")[0] not in keys), *overrides)

    return make


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_video_counts_once_and_the_figures_are_exact(tmp_path, model, make_config, capsys):
    weights = save_constant(model, tmp_path / "constant.h5")
    metrics = run_evaluation(make_config(weights, "dataset.title='Ours, day 1'"))
    assert (metrics.num_videos, metrics.num_bad_videos) == (7, 0)
    assert metrics.top1 == pytest.approx(3 / 7)
    assert metrics.top5 == 1.0
    assert metrics.mean_class_accuracy == pytest.approx(1 / 3)
    rows = read_rows(tmp_path / "report" / "predictions.csv")
    assert ["/".join(Path(row["path"]).with_suffix("").parts[-2:]) for row in rows] == VAL_VIDEOS
    assert {(row["class_1"], row["class_2"], row["class_3"]) for row in rows} == {("light", "middle", "dark")}
    assert float(rows[0]["probability_1"]) == pytest.approx(np.exp(2) / (1 + np.e + np.exp(2)), abs=1e-6)
    text = capsys.readouterr().out
    assert "Ours, day 1, 7 validation videos, 3 classes" in text
    assert "| Ours, day 1 |" in (tmp_path / "results" / "results.md").read_text()
    assert "Ours, day 1" in (tmp_path / "report" / "report.html").read_text()
    assert "2 clips x 3 crops, 4 frames in a row, short side 32, 32 x 32 px" in text
    assert "42 views" in text
    assert "42.86 %" in text
    assert "no published number for this" in text
    # Every evaluation is a row of the table, unless there is none.
    run_evaluation(make_config(weights, "results_dir=null"))
    assert len(json.loads((tmp_path / "results" / "results.json").read_text())) == 1
    assert (tmp_path / "results" / "results.md").read_text().count("42.86 (") == 1


def test_two_classes_have_a_roc_and_no_top5(tmp_path, videos, make_config, capsys):
    for folder in videos.glob("*/middle"):
        shutil.rmtree(folder)
    model = make_model(2)
    weight = 50 * official_tensors(model)["cls_head.fc_cls.weight"]
    weights = save(model, tmp_path / "two.safetensors", CLASSES[:2], cls_head__fc_cls__weight=weight)
    (videos / "val" / "light" / "bad.avi").write_bytes(b"no video")
    run_evaluation(make_config(weights, "allow_bad_videos=true"))
    rows = [row for row in read_rows(tmp_path / "report" / "predictions.csv") if row["class_1"]]
    labels = [int(row["label"]) for row in rows]
    light = [float(row[f"probability_{1 if row['class_1'] == 'light' else 2}"]) for row in rows]
    summary = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert (len(rows), summary["num_videos"], summary["num_classes"]) == (5, 6, 2)
    assert summary["roc_auc"] == pytest.approx(roc_auc_score(labels, light))
    assert summary["average_precision"] == pytest.approx(average_precision_score(labels, light))
    assert summary["log_loss"] == pytest.approx(log_loss(labels, light), rel=1e-3)
    assert not {"top5", "clip_top5"} & summary.keys()
    text = capsys.readouterr().out
    for words in ("ROC-AUC", "average precision (second class)", "macro F1", "calibration error", "log loss"):
        assert words in text
    assert "top-5" not in text + (tmp_path / "report" / "report.html").read_text()


def test_metrics_json_holds_the_whole_protocol(tmp_path, videos, model, make_config):
    weights = save_constant(model, tmp_path / "run" / "checkpoints" / "best.safetensors")
    run_evaluation(make_config(tmp_path / "run"))
    protocol = json.loads((tmp_path / "report" / "metrics.json").read_text())["protocol"]
    clip = {"num_frames": 4, "frame_stride": 1, "sampling": "dense", "num_clips": 2, "num_crops": 3}
    clip |= {"spacing": "centred", "average": "prob", "frame_rate": "as in the file"}
    assert protocol.items() >= (clip | {"resize": 32, "crop": 32, "precision": "float32"}).items()
    assert protocol["weights"]["file"] == str(weights)
    assert protocol["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (protocol["dataset"]["name"], protocol["dataset"]["root"]) == ("folder", str(videos))
    assert (protocol["vswin"], protocol["tensorflow"]) == (vswin.__version__, tf.__version__)
    assert protocol["short_sides"] == {"40": 7}
    assert protocol["decoder"] == {
        "configured": "auto",
        "opencv": {"version": cv2.__version__, "videos": 7},
        "pyav": {"version": av.__version__, "videos": 0},
    }
    assert (protocol["dataset"]["num_videos"], protocol["dataset"]["num_missing"]) == (7, 0)
    # The hash is of names and classes, so it stays when videos are moved or encoded again.
    lines = sorted(f"{name.split('/')[1]}\t{name.split('/')[0]}\n" for name in VAL_VIDEOS)
    assert protocol["dataset"]["list_hash"] == hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("batch_size", "views_per_step", "average"), [(1, 100, "prob"), (7, 5, "prob"), (3, 1, "score")]
)
def test_probabilities_are_those_of_the_views_however_they_are_batched(
    tmp_path, videos, model, make_config, batch_size, views_per_step, average
):
    changes = (f"batch_size={batch_size}", f"average={average}", f"clip.views_per_step={views_per_step}")
    metrics, hits = run_evaluation(make_config(save(model, tmp_path / "model.h5"), *changes)), []
    for row, name in zip(read_rows(tmp_path / "report" / "predictions.csv"), VAL_VIDEOS, strict=True):
        logits = model(vswin.load_views(videos / "val" / f"{name}.avi", 4, 1, 2, 3, resize=32, crop=32))
        hits += (logits.numpy().argmax(axis=1) == CLASSES.index(name.split("/")[0])).tolist()
        if average == "score":
            expected = tf.nn.softmax(tf.reduce_mean(logits, axis=0)).numpy()
        else:
            expected = tf.reduce_mean(tf.nn.softmax(logits), axis=0).numpy()
        given = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in (1, 2, 3)}
        np.testing.assert_allclose([given[name] for name in CLASSES], expected, atol=2e-6)
    # Clip-level accuracy judges the views one by one; a view with nearly equal logits may differ.
    assert metrics.clip_top1 == pytest.approx(np.mean(hits), abs=0.03)


def test_two_devices_give_exactly_what_one_gives(tmp_path, model, make_config):
    """Seven videos in batches of four: the last batch is padded, and one device gets only padding."""
    weights = save(model, tmp_path / "model.h5")
    figures, predictions = [], []
    for changes in (("runtime.strategy=one_device",), ("runtime.strategy=mirrored", "batch_size=4")):
        figures.append(dataclasses.asdict(run_evaluation(make_config(weights, *changes))))
        predictions.append(read_rows(tmp_path / "report" / "predictions.csv"))
    assert figures[0] == figures[1]
    for row, expected in zip(*predictions, strict=True):
        for key, value in row.items():
            # The clips in one matrix product decide the last bit of a float32.
            is_close = key.startswith("probability") and abs(float(value) - float(expected[key])) < 1.1e-6
            assert is_close or value == expected[key]
    with pytest.raises(InputError, match=r"batch_size=3 cannot be divided among 2 devices; .*: 2 or 4"):
        run_evaluation(make_config(weights, "runtime.strategy=mirrored", "batch_size=3"))


def test_bad_videos_are_an_error_that_names_five_and_their_cause(tmp_path, videos, model, make_config):
    weights = save_constant(model, tmp_path / "constant.h5")
    for name in VAL_VIDEOS:
        (videos / "val" / f"{name}.avi").write_bytes(b"")
    with pytest.raises(InputError, match=r"dark.a\.avi: empty") as caught:
        run_evaluation(make_config(weights, "batch_size=7"))
    assert str(caught.value).count(".avi: empty") == 5
    assert all(words in str(caught.value) for words in ("7 of the videos", "and 2 more", "allow_bad_videos=true"))
    assert not (tmp_path / "report" / "metrics.json").exists()


def test_allowed_bad_video_counts_as_wrong_and_is_listed(tmp_path, videos, model, make_config, capsys):
    weights = save_constant(model, tmp_path / "constant.h5")
    (videos / "val" / "light" / "b.avi").write_bytes(b"")
    metrics = run_evaluation(make_config(weights, "allow_bad_videos=true"))
    assert (metrics.num_videos, metrics.num_bad_videos) == (7, 1)
    assert metrics.top1 == pytest.approx(2 / 7)
    assert metrics.top5 == pytest.approx(6 / 7)
    assert metrics.mean_class_accuracy == pytest.approx(2 / 3 / 3)
    rows = read_rows(tmp_path / "report" / "evaluation_bad_videos.csv")
    assert [Path(row["path"]).name for row in rows] == ["b.avi"]
    assert read_rows(tmp_path / "report" / "predictions.csv")[3]["class_1"] == ""
    assert "1 of them could not be decoded" in capsys.readouterr().out


def test_weights_of_other_classes_are_an_error_that_shows_them(tmp_path, model, make_config):
    with pytest.raises(InputError, match=r"absent\.h5"):
        run_evaluation(make_config(tmp_path / "absent.h5"))
    for names, words in (
        (["dark", "middle", "light"], r"\(2 of 3 differ\): class 1 is 'middle', here 'light'; class 2 is"),
        (["dark", "light"], "its class_names are 2, its head has 3 classes"),
    ):
        with pytest.raises(InputError, match=words):
            run_evaluation(make_config(save(model, tmp_path / "model.h5", class_names=names)))
    save_checkpoint(tmp_path / "nameless.h5", official_tensors(make_model(4)), {})
    with pytest.raises(InputError, match="trained for 4 classes, the data set has 3"):
        run_evaluation(make_config(tmp_path / "nameless.h5"))
    # Numbers for names say nothing about the order.
    weights = save(model, tmp_path / "model.h5", class_names=["0", "1", "2"])
    assert run_evaluation(make_config(weights)).num_videos == 7


def test_weights_that_give_no_numbers_are_an_error(tmp_path, model, make_config):
    weights = save(model, tmp_path / "model.h5", cls_head__fc_cls__bias=[0, np.nan, 0])
    with pytest.raises(InputError, match=r"model\.h5: not finite.*cls_head\.fc_cls\.bias"):
        run_evaluation(make_config(weights))
    weights = save(model, tmp_path / "model.h5", cls_head__fc_cls__weight=3e38)
    with pytest.raises(InputError, match=r"NaN for .*a\.avi"):
        run_evaluation(make_config(weights))


@pytest.mark.slow
def test_half_precision_is_close(tmp_path, model, make_config):
    weights, probabilities = save(model, tmp_path / "model.h5"), []
    for precision in ("float32", "bfloat16"):
        run_evaluation(make_config(weights, f"runtime.precision={precision}"))
        rows = read_rows(tmp_path / "report" / "predictions.csv")
        probabilities.append([float(row["probability_1"]) for row in rows])
    assert probabilities[0] != probabilities[1]
    np.testing.assert_allclose(*probabilities, atol=0.02)


def test_progress_is_printed_as_lines_without_a_terminal(tmp_path, model, make_config, capsys, monkeypatch):
    monkeypatch.setattr(evaluation_views, "SECONDS_BETWEEN_LINES", 0.0)
    run_evaluation(make_config(save(model, tmp_path / "model.h5"), "batch_size=4"))
    lines = [line for line in capsys.readouterr().out.splitlines() if " of 7 videos" in line]
    assert [line.split()[0] for line in lines] == ["4", "7"]
    # Tracing the model takes most of the time of the first batch.
    assert "videos/s" not in lines[0]
    assert "videos/s" in lines[1]
    assert lines[1].endswith("  0 s left")


def test_the_folder_of_the_report_has_a_name_and_is_made_before_the_work(tmp_path, make_config, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_evaluation(make_config(None, "output_dir=null", "batch_size=null")).num_videos == 7
    assert "every weight is random (init_from=null)" in capsys.readouterr().out
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.endswith("_swin_micro_folder")
    assert json.loads((folder / "metrics.json").read_text())["protocol"]["weights"] == {"init_from": None}
    with pytest.raises(InputError, match="name another one"):
        run_evaluation(make_config(None, f"output_dir={folder / 'metrics.json'}"))


def test_a_batch_of_broken_videos_alone_has_nothing_that_is_not_finite():
    evaluation_views.check_finite(np.zeros((0, 3), np.float32), [])
    with pytest.raises(InputError, match=r"NaN for b\.avi"):
        evaluation_views.check_finite(np.array([[[0.0, 1.0]], [[0.0, np.inf]]], np.float32), ["a.avi", "b.avi"])
