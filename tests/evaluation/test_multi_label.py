"""An evaluation of several labels per sample on real files: files, report, comparison, prediction, export."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, f1_score

from tests.evaluation.test_run import CLASSES, make_config, make_model, read_rows, save, videos  # noqa: F401
from vswin.errors import InputError
from vswin.evaluation.run import run_evaluation
from vswin.inference.predict import Outputs, run_predict
from vswin.runs.compare import run_compare
from vswin.tools.export import run_export
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

LABELS = ["dark", "dark;light", "light|dark", "", "light", "light", "dark"]
TASK = "dataset.task=multi_label"
THRESHOLDS = [0.4, 0.6, 0.5]


@pytest.fixture
def weights(tmp_path) -> str:
    return str(save_several(tmp_path / "several.safetensors", 1))


def save_several(path: Path, seed: int) -> Path:
    tf.random.set_seed(seed)
    clip = {"num_frames": 4, "frame_stride": 1, "crop": 32, "num_clips": 2, "num_crops": 3, "views_per_step": 4}
    metadata = {"task": "multi_label", "thresholds": THRESHOLDS, "class_names": CLASSES}
    metadata["clip"] = clip | {"sampling": "dense", "spacing": "centred"}
    model = make_model(3)
    metadata["size"], tensors = dataclasses.asdict(model.size), official_tensors(model)
    tensors["cls_head.fc_cls.weight"] = tensors["cls_head.fc_cls.weight"] * 100  # so that videos differ
    save_checkpoint(path, tensors, metadata)
    return path


@pytest.fixture
def tested(tmp_path, videos) -> list[str]:  # noqa: F811
    """A list of seven videos and a bad one."""
    (videos / "val" / "dark" / "bad.avi").write_bytes(b"no video")
    paths = [str(path.relative_to(videos)) for path in sorted(videos.glob("val/*/?.avi"))]
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label"), *zip([*paths, "val/dark/bad.avi"], [*LABELS, "light"], strict=True)]
        )
    lists = [f"dataset.{name}_list={tmp_path / 'list.csv'}" for name in ("train", "val")]
    return [TASK, *lists, "allow_bad_videos=true"]


def test_figures_and_files_agree_with_scikit_learn(tmp_path, weights, make_config, tested, capsys):  # noqa: F811
    metrics = run_evaluation(make_config(weights, *tested))
    folder = tmp_path / "report"
    scores = np.array([[float(row[name] or -1) for name in CLASSES] for row in read_rows(folder / "scores.csv")])
    assert (scores[-1] == -1).all()
    targets = np.array([[name in labels for name in CLASSES] for labels in [*LABELS, "light"]])
    precisions = [average_precision_score(targets[:, label], scores[:, label]) for label in range(2)]
    assert metrics.map == pytest.approx(np.mean(precisions))
    predicted = scores >= THRESHOLDS
    assert metrics.f1_micro == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert (metrics.num_bad_videos, metrics.num_empty_classes) == (1, 1)
    dark, _, middle = read_rows(folder / "per_class.csv")
    assert (dark["num_videos"], dark["threshold"], middle["average_precision"]) == ("4", "0.4000", "")
    rows = read_rows(folder / "predictions.csv")
    assert [row["label_name"] for row in rows] == [
        *(text.replace("light|dark", "dark;light") for text in LABELS),
        "light",
    ]
    marked = [";".join(name for name, flag in zip(CLASSES, flags, strict=True) if flag) for flags in predicted]
    assert [row["predicted"] for row in rows] == marked
    assert rows[-1]["class_1"] == ""
    written = json.loads((folder / "metrics.json").read_text())
    assert (written["task"], written["map"]) == ("multi_label", metrics.map)
    said = capsys.readouterr().out
    assert f"mAP               {100 * metrics.map:.2f} %" in said
    assert "1 class without videos, which count in no mean over classes" in said
    assert "1 of them could not be decoded" in said
    report = (folder / "report.html").read_text()
    assert "Figures by class" in report
    assert "Confusion matrix" not in report
    assert "mAP %" in (tmp_path / "results" / "results.md").read_text()

    # The prediction of a file, and of an export, is that of the evaluation.
    run_export(weights, tmp_path / "exported")
    for model in (weights, str(tmp_path / "exported")):
        (found,) = run_predict(
            [rows[0]["path"]], model, ["clip.resize=32"], outputs=Outputs(csv=tmp_path / "p.csv", is_overwriting=True)
        )
        np.testing.assert_allclose(sorted(found.probabilities), sorted(scores[0]), atol=1e-4)
        assert ";".join(sorted(found.predicted)) == rows[0]["predicted"]
        (row,) = read_rows(tmp_path / "p.csv")
        assert sorted(row["predicted"].split(";")) == sorted(rows[0]["predicted"].split(";"))
    assert (
        "* marks the classes whose probability reaches their threshold (as chosen on validation)"
        in capsys.readouterr().out
    )
    assert open_checkpoint(tmp_path / "exported").metadata["thresholds"] == THRESHOLDS

    # Another model on the same videos, and one with a single label.
    other = save_several(tmp_path / "other.safetensors", 2)
    run_evaluation(make_config(other, *tested, f"output_dir={tmp_path / 'other'}"))
    single = save(make_model(3), tmp_path / "single.safetensors")
    run_evaluation(make_config(single, f"output_dir={tmp_path / 'single'}", "allow_bad_videos=true"))
    capsys.readouterr()
    run_compare([str(folder), str(tmp_path / "other"), str(tmp_path / "single")], json_file=tmp_path / "compared.json")
    pair, refused = json.loads((tmp_path / "compared.json").read_text())["pairs"]
    maps = [json.loads((path / "metrics.json").read_text())["map"] for path in (folder, tmp_path / "other")]
    assert pair["difference"] == pytest.approx(maps[1] - maps[0])
    assert (pair["interval"][0] > 0 or pair["interval"][1] < 0) == (pair["corrected_p"] <= 0.05)
    assert "points of mAP" in pair["sentence"]
    assert "one has several labels per sample, the other has one" in refused["problem"]


@pytest.mark.parametrize(("trained", "given"), [("multi_label", "single_label"), ("single_label", "multi_label")])
def test_weights_of_the_other_task_are_refused(tmp_path, make_config, weights, trained, given):  # noqa: F811
    if trained == "single_label":
        weights = save(make_model(3), tmp_path / "single.safetensors")
    with pytest.raises(InputError, match=rf"trained with dataset\.task={trained}.*set dataset\.task={trained}"):
        run_evaluation(make_config(weights, f"dataset.task={given}"))


def test_a_list_without_any_label_is_refused(tmp_path, make_config, weights, tested):  # noqa: F811
    text = (tmp_path / "list.csv").read_text().splitlines()
    (tmp_path / "list.csv").write_text("\n".join([text[0], *(line.split(",")[0] + "," for line in text[1:])]))
    with pytest.raises(InputError, match="gives no video a label"):
        run_evaluation(make_config(weights, *tested))


@pytest.mark.parametrize(("key", "value"), [("thresholds", [0.5]), ("thresholds", "much"), ("task", "both")])
def test_damaged_metadata_are_named(tmp_path, key, value):
    metadata = {"class_names": CLASSES, "task": "multi_label", "thresholds": THRESHOLDS, key: value}
    save_checkpoint(tmp_path / "damaged.safetensors", official_tensors(make_model(3)), metadata)
    with pytest.raises(InputError, match=r"damaged\.safetensors: its (thresholds are 1|task or its thresholds)"):
        open_checkpoint(tmp_path / "damaged.safetensors")
