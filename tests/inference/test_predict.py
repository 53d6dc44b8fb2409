import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import vswin
from vswin.data.decode import VideoReader
from vswin.errors import InputError
from vswin.inference import predict
from vswin.inference.predict import STDOUT, Outputs, Prediction, print_prediction, rank, run_predict
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import write_safetensors

NAMES = ["wave", "jump rope", "Größe"]


PROBABILITIES = np.array([0.1, 0.3, 0.3, 0.3], np.float32)
ODD_NAMES = ["a, b", "[bold]x[/bold]", "Größe", "gehen"]


def printed(prediction, width=80):
    text = io.StringIO()
    print_prediction(Console(file=text, highlight=False, soft_wrap=True, width=width), prediction)
    return text.getvalue()


def test_among_equal_classes_the_first_comes_first_and_names_are_shown_as_they_are():
    prediction = rank("a[1].mp4", PROBABILITIES, ODD_NAMES, 9)
    assert prediction.labels.tolist() == [1, 2, 3, 0]
    lines = [line.split() for line in printed(prediction).splitlines()]
    assert lines[0] == ["a[1].mp4"]
    assert lines[1] == ["30.00", "%", "━━━━━━", "[bold]x[/bold]"]
    assert lines[4] == ["10.00", "%", "━━", "a,", "b"]


@pytest.mark.parametrize("width", [20, 30, 49])
def test_a_narrow_window_has_no_bars_and_breaks_names(width):
    names = ["a name of many words that goes on and on"] * 4
    lines = printed(rank("a.mp4", PROBABILITIES, names, 2), width).splitlines()
    assert max(map(len, lines)) <= width
    assert "━" not in "".join(lines)
    assert "".join("".join(lines[1:]).split()).count("goesonandon") == 2


def test_control_characters_are_printed_escaped():
    prediction = rank("evil\x1b[2Jname\n\udcff.mp4", PROBABILITIES, ["\x07bell", *ODD_NAMES[1:]], 4, seconds=1.25)
    text = printed(prediction) + printed(Prediction("b\r.mp4", problem="not a \x1b[31mvideo"))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.startswith("evil\\x1b[2Jname\\n\\udcff.mp4  1.2 s\n")
    assert text.endswith("b\\r.mp4: passed over, not a \\x1b[31mvideo\n")


@pytest.fixture(scope="module")
def videos(write_ramp, tmp_path_factory) -> Path:
    """Five videos of two classes; one is shorter than a clip, one is in portrait format."""
    root = tmp_path_factory.mktemp("videos")
    sizes = {"run/a": (20, 48, 64), "run/b": (31, 64, 48), "run/c": (5, 48, 64), "walk/a": (12, 40, 72)}
    for name, (num_frames, height, width) in sizes.items():
        write_ramp(root / f"{name}.avi", num_frames, height, width)
    return root


def expected(model, path, **changes) -> np.ndarray:
    """Returns the public functions' prediction for a video: the average of the views' probabilities, [K]."""
    views = vswin.load_views(
        path, **{"num_frames": 4, "num_clips": 2, "num_crops": 3, "resize": 32, "crop": 32} | changes
    )  # [V, T, H, W, 3]
    return tf.reduce_mean(tf.nn.softmax(model(views)), axis=0).numpy()


def assert_predicted(predictions, model, **changes):
    for prediction in predictions:
        probabilities = expected(model, prediction.path, **changes)
        order = np.argsort(-probabilities)[: len(prediction.labels)]
        assert prediction.labels.tolist() == order.tolist()
        assert prediction.names == [NAMES[label] for label in order]
        np.testing.assert_allclose(prediction.probabilities, probabilities[order], rtol=0, atol=1e-6)


def test_predictions_are_those_of_the_model_on_the_protocol_of_its_run(run_folder, model, videos, tmp_path, capsys):
    outputs = Outputs(tmp_path / "new" / "p.json", tmp_path / "new" / "p.csv")
    predictions = run_predict([str(videos)], str(run_folder), top_k=2, outputs=outputs)
    paths = [Path(prediction.path).relative_to(videos).as_posix() for prediction in predictions]
    assert paths == ["run/a.avi", "run/b.avi", "run/c.avi", "walk/a.avi"]
    assert_predicted(predictions, model)
    assert len({tuple(prediction.probabilities) for prediction in predictions}) == 4

    printed = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in printed)
    first = printed.splitlines()
    assert first[0] == f"{run_folder}: 3 classes; protocol of the run in {run_folder}"
    assert first[1] == predictions[0].path
    assert first[2].split()[0] == f"{100 * predictions[0].probabilities[0]:.2f}"
    assert "average of 6 views each (2 clips x 3 crops; 4 frames, one in 2; short side 32" in printed
    assert "float32 on CPU" in printed

    content = json.loads((tmp_path / "new" / "p.json").read_text())
    assert content["protocol"]["num_clips"] == 2
    assert content["protocol"]["sampling"] == "dense"
    with (tmp_path / "new" / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for prediction, entry, row in zip(predictions, content["predictions"], rows, strict=True):
        assert entry["path"] == row["path"] == prediction.path
        assert [best["class"] for best in entry["top"]] == [row["class_1"], row["class_2"]] == prediction.names
        assert [best["label"] for best in entry["top"]] == prediction.labels.tolist()
        assert float(row["probability_2"]) == pytest.approx(entry["top"][1]["probability"], abs=1e-6)


def test_fewer_views_and_other_clips_can_be_had(run_folder, model, videos):
    overrides = ["clip.num_clips=1", "clip.num_crops=1", "clip.frame_stride=1", "clip.crop=40", "clip.resize=44"]
    paths = [str(videos / "run" / "b.avi"), str(videos / "walk" / "a.avi")]
    predictions = run_predict(paths, str(run_folder), overrides, top_k=9)
    assert [len(prediction.labels) for prediction in predictions] == [3, 3]
    assert_predicted(predictions, model, num_clips=1, num_crops=1, frame_stride=1, crop=40, resize=44)


def test_bad_files_are_named_and_passed_over(run_folder, model, videos, write_ramp, tmp_path, capsys):
    folder = tmp_path / "mixed"
    good = write_ramp(folder / "b.avi", 12)
    write_ramp(folder / "one.avi", 1)
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "empty.mkv").touch()
    (folder / "gone.mp4").symlink_to("nowhere")
    half = (videos / "run" / "b.avi").read_bytes()
    (folder / "half.avi").write_bytes(half[: len(half) // 2])
    outputs = Outputs(json=tmp_path / "p.json", csv=tmp_path / "p.csv", save=tmp_path / "saved")
    with pytest.raises(SystemExit) as caught:
        run_predict([str(folder)], str(run_folder), outputs=outputs)
    assert caught.value.code == 1
    printed = capsys.readouterr().out
    for words in (
        "empty.mkv: passed over, empty (0 bytes)",
        "gone.mp4: passed over, missing",
        "half.avi: passed over, truncated",
        "one.avi: passed over, one frame (a still, not a video)",
        "text.mp4: passed over, not a video",
        "5 of 6 videos could not be decoded and were passed over",
    ):
        assert words in printed
    entries = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert [entry["path"] for entry in entries if "top" in entry] == [good]
    probabilities = expected(model, good)
    assert entries[0]["top"][0]["probability"] == pytest.approx(probabilities.max(), abs=1e-6)
    with (tmp_path / "p.csv").open(newline="") as file:
        assert [bool(row["error"]) for row in csv.DictReader(file)] == [False, True, True, True, True, True]
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["b.mp4"]


OF_RUN = (
    *("clip.num_frames=4", "clip.crop=32", "clip.num_clips=2", "model=swin_micro", "model.embed_dim=8"),
    *("model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
)


def test_weights_without_metadata_have_numbers_or_the_names_of_a_file_and_need_a_head(
    run_folder, videos, tmp_path, capsys
):
    tensors, weights, video = open_checkpoint(run_folder).tensors, tmp_path / "w.safetensors", str(videos / "run/a.avi")
    write_safetensors(weights, tensors, {})
    (numbered,) = run_predict([video], str(weights), OF_RUN)
    assert numbered.names == [str(label) for label in numbered.labels]
    assert "3 classes, whose names are not known (--classes FILE gives them); protocol of Kinetics" in (
        capsys.readouterr().out
    )
    (tmp_path / "classes.txt").write_text("\ufeff" + "\n".join(NAMES), encoding="utf-8")
    (named,) = run_predict([video], str(weights), OF_RUN, classes=tmp_path / "classes.txt")
    assert named.names == [NAMES[label] for label in numbered.labels]
    (tmp_path / "two.txt").write_text("a\nb\n")
    for name, words in (("two.txt", r"two.txt names 2 classes, the model has 3"), ("no.txt", "no.txt cannot be read")):
        with pytest.raises(InputError, match=words):
            run_predict([video], str(weights), OF_RUN, classes=tmp_path / name)
    with pytest.raises(InputError, match="they fit no known size"):
        run_predict([video], str(weights))
    write_safetensors(weights, {name: tensor for name, tensor in tensors.items() if "cls_head" not in name}, {})
    with pytest.raises(InputError, match="there is no head in them"):
        run_predict([video], str(weights), OF_RUN)


def test_a_saved_model_predicts_as_the_run_does(exported, model, videos):
    assert_predicted(run_predict([str(videos / "walk")], str(exported)), model)


def test_nothing_is_overwritten_unless_it_is_asked_for(run_folder, videos, tmp_path):
    video, there = str(videos / "run" / "a.avi"), tmp_path / "p.csv"
    there.write_text("mine")
    for outputs in (Outputs(csv=there), Outputs(json=there)):
        with pytest.raises(InputError, match=r"p.csv exists; name another file, or give --overwrite"):
            run_predict([video], str(run_folder), outputs=outputs)
    assert there.read_text() == "mine"
    run_predict([video], str(run_folder), outputs=Outputs(csv=there, is_overwriting=True))
    assert there.read_text().startswith("path,class_1")


def test_ctrl_c_leaves_what_was_predicted_before(run_folder, videos, monkeypatch, tmp_path):
    shown = []

    def interrupt(console, prediction):
        shown.append(prediction)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(predict, "print_prediction", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_predict([str(videos)], str(run_folder), outputs=Outputs(csv=tmp_path / "p.csv", save=tmp_path / "saved"))
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 3
    assert list((tmp_path / "saved").rglob("*.mp4")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 0}, "--top-k 0: at least 1"),
        ({"seconds": 3.0}, "--seconds says how long a camera is watched"),
        ({"seconds": 0.0}, "--seconds 0: above 0"),
        ({"outputs": Outputs(json=STDOUT, csv=STDOUT)}, "--json and --csv both name -"),
        ({"overrides": ["runtime.strategy=multi_worker"]}, "predictions take one machine"),
    ],
)
def test_options_that_make_no_sense_are_refused(run_folder, videos, options, words):
    with pytest.raises(InputError, match=words):
        run_predict([str(videos)], str(run_folder), **options)


def test_a_part_of_a_video_and_a_folder_of_pictures_are_predicted(run_folder, write_ramp, tmp_path):
    film = write_ramp(tmp_path / "film.mkv", 30)
    (tmp_path / "cut").mkdir()
    with VideoReader(film) as reader:
        for number, frame in enumerate(reader.read(np.arange(8, 28))):
            cv2.imwrite(str(tmp_path / "cut" / f"{number}.png"), frame[24:48])  # gray, so RGB is BGR
    names = [f"{film}#t=0.8,2.8&box=0,24,64,48px", str(tmp_path / "cut")]
    part, pictures = run_predict(names, str(run_folder))
    assert [part.path, pictures.path] == names
    assert part.probabilities.tolist() == pictures.probabilities.tolist()
    assert run_predict([film], str(run_folder))[0].probabilities.tolist() != part.probabilities.tolist()
