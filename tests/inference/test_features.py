import json
import sys

import numpy as np
import pyarrow.parquet
import pytest

import vswin
from vswin.errors import InputError
from vswin.inference.features import run_extract
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint


@pytest.fixture(scope="module")
def videos(write_ramp, tmp_path_factory):
    """Three videos of two classes at 10 frames a second, and one outside of class folders at 20."""
    root = tmp_path_factory.mktemp("videos")
    for name, num_frames, rate in (("run/a", 28, 10), ("run/b", 12, 10), ("walk/a", 8, 10), ("z", 28, 20)):
        write_ramp(root / f"{name}.avi", num_frames, rate=rate)
    return root


def pooled(model, path):
    """Returns the pooled features of each view, [V, C]."""
    views = vswin.load_views(path, num_frames=4, num_clips=2, num_crops=3, resize=32, crop=32)
    return model.features(views).numpy().mean(axis=(1, 2, 3))


def test_a_row_per_video_is_the_average_over_its_views(run_folder, model, videos, tmp_path, capsys):
    run_extract([str(videos)], str(run_folder), tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:  # numpy.load refuses pickles
        found = dict(file)
    assert found["features"].dtype == np.float32
    assert found["features"].shape == (4, 16)
    assert found["label"].tolist() == ["", "run", "run", "walk"]
    assert found["start_sec"].tolist() == [0, 0, 0, 0]
    expected = [pooled(model, path).mean(axis=0) for path in found["path"].tolist()]
    np.testing.assert_allclose(found["features"], expected, rtol=0, atol=1e-5)
    assert np.ptp(found["features"], axis=0).max() > 1e-3
    metadata = json.loads(str(found["about"]))
    assert (metadata["level"], metadata["protocol"]["num_crops"]) == ("video", 3)
    assert "4 rows of 16 features, a row per video" in capsys.readouterr().out


def test_a_row_per_clip_is_the_average_over_its_crops_and_says_where_it_begins(run_folder, model, videos, tmp_path):
    run_extract([str(videos / "run"), str(videos / "z.avi")], str(run_folder), tmp_path / "f.parquet", level="clip")
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "start_sec", "label", "features"]
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[16]"
    assert json.loads(table.schema.metadata[b"vswin"])["level"] == "clip"
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [None] * 6
    # 28 frames leave 21 possible starts for a clip that spans 8: 5 and 15; 12 frames leave 5: 1 and 3.
    np.testing.assert_allclose([row["start_sec"] for row in rows], [0.5, 1.5, 0.1, 0.3, 0.25, 0.75])
    for i in range(0, 6, 2):
        views = pooled(model, rows[i]["path"]).reshape(3, 2, 16)  # crops, clips, C
        np.testing.assert_allclose([row["features"] for row in rows[i : i + 2]], views.mean(axis=0), rtol=0, atol=1e-5)


def test_weights_without_a_head_have_features(run_folder, model, videos, tmp_path):
    checkpoint = open_checkpoint(run_folder)
    tensors = {name: values for name, values in checkpoint.tensors.items() if "cls_head" not in name}
    metadata = {key: checkpoint.metadata[key] for key in ("size", "clip")}
    save_checkpoint(tmp_path / "backbone.h5", tensors, metadata)
    run_extract([str(videos / "z.avi")], str(tmp_path / "backbone.h5"), tmp_path / "f.npz")
    expected = pooled(model, videos / "z.avi").mean(axis=0)
    np.testing.assert_allclose(np.load(tmp_path / "f.npz")["features"], expected[None], rtol=0, atol=1e-5)


def test_bad_files_are_passed_over_and_the_others_written(run_folder, videos, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    with pytest.raises(SystemExit) as caught:
        run_extract([str(tmp_path / "text.mp4"), str(videos / "z.avi")], str(run_folder), tmp_path / "f.npz")
    assert caught.value.code == 1
    assert np.load(tmp_path / "f.npz")["path"].tolist() == [str(videos / "z.avi")]
    assert "text.mp4: passed over, not a video" in capsys.readouterr().out
    with pytest.raises(InputError, match="no video could be decoded"):
        run_extract([str(tmp_path / "text.mp4")], str(run_folder), tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


def test_what_cannot_be_written_is_said_before_the_work(run_folder, videos, tmp_path, monkeypatch):
    (tmp_path / "f.npz").write_text("mine")
    for output, words in (("f.npz", "exists"), ("f.txt", r"the ending says the format: .npz or .parquet")):
        with pytest.raises(InputError, match=words):
            run_extract([str(videos)], str(run_folder), tmp_path / output)
    assert (tmp_path / "f.npz").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'vswin\[parquet\]'"):
        run_extract([str(videos)], str(run_folder), tmp_path / "f.parquet")
