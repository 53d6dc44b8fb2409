"""`vswin explain` from the command line to the files it writes."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from typer.main import get_command

import vswin
from vswin import cli
from vswin.errors import InputError
from vswin.explain.run import HeatedClip, Outputs, Question, draw_clips, draw_film, draw_heat, run_explain

CLIPS = Path(__file__).parents[1] / "clips"
VIDEO = str(CLIPS / "demo.mp4")


def explain(*arguments: str) -> None:
    get_command(cli.app).main(["explain", *arguments], standalone_mode=False)


def read_film(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_film_a_sheet_and_the_numbers(run_folder, model, tmp_path):
    explain(VIDEO, "--model", str(run_folder), "--output", str(tmp_path / "out"), "--npz", "--clips", "2")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["demo.mp4", "demo.npz", "demo.png"]
    assert len(read_film(tmp_path / "out" / "demo.mp4")) == 2 * 4
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    found = np.load(tmp_path / "out" / "demo.npz")
    metadata = json.loads(str(found["about"]))
    assert (metadata["method"], metadata["stage"]) == ("grad_cam", 4)
    assert (found["frames"].shape, found["map"].shape) == ((2, 4), (2, 2, 2, 2))
    np.testing.assert_array_equal(np.diff(found["frames"]), 2)
    # With the public functions: the class has the highest average probability.
    views = vswin.load_views(VIDEO, 4, 2, num_clips=2, num_crops=1, resize=64, crop=64)
    probabilities = np.exp(model(views)) / np.exp(model(views)).sum(axis=1, keepdims=True)
    label = int(probabilities.mean(axis=0).argmax())
    assert metadata["label"] == label
    assert metadata["probability"] == pytest.approx(probabilities.mean(axis=0)[label], rel=1e-4)
    np.testing.assert_allclose(found["heat"], vswin.grad_cam(model, views, [label, label]), atol=1e-4)


@pytest.mark.parametrize(("label", "number"), [("Größe", 2), ("4", 4)])
def test_any_class_by_its_name_or_number(run_folder, tmp_path, label, number):
    question = Question(label, stage=2)
    run_explain([VIDEO], str(run_folder), Outputs(tmp_path / "out", has_maps=True), question)
    metadata = json.loads(str(np.load(tmp_path / "out" / "demo.npz")["about"]))
    assert (metadata["label"], metadata["stage"]) == (number, 2)


def test_attention(run_folder, tmp_path):
    output = str(tmp_path / "out")
    arguments = [VIDEO, "--model", str(run_folder), "--output", output, "--npz"]
    explain(*arguments, "--attention", "1.2", "--token", "0,63,7")
    found = np.load(tmp_path / "out" / "demo.npz")
    metadata = json.loads(str(found["about"]))
    assert (metadata["method"], metadata["block"], metadata["token"]) == ("attention", 2, [0, 15, 1])
    assert found["map"].shape == (1, 2, 16, 16)
    assert set(np.unique(found["heat"][0, :, :40])) == {0}


def test_nothing_is_overwritten_unasked(run_folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "demo.png").write_text("mine")
    with pytest.raises(InputError, match=r"demo.png exists; .* --overwrite"):
        run_explain([VIDEO], str(run_folder), Outputs(output))
    assert [path.name for path in output.iterdir()] == ["demo.png"]
    run_explain([VIDEO], str(run_folder), Outputs(output, is_overwriting=True))
    assert len(list(output.iterdir())) == 2
    shutil.copy(VIDEO, tmp_path / "demo.mp4")
    with pytest.raises(InputError, match=r"--output .* is one of the videos"):
        run_explain([str(tmp_path / "demo.mp4")], str(run_folder), Outputs(tmp_path, is_overwriting=True))


def test_a_file_that_is_no_video_is_passed_over(run_folder, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(SystemExit, match="1"):
        run_explain([str(tmp_path / "bad.mp4"), VIDEO], str(run_folder), Outputs(tmp_path / "out"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "passed over, not a video" in printed
    assert "1 of 2 videos could not be decoded" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["demo.mp4", "demo.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "jump rop"], "no such class; did you mean jump rope"),
        (["--class", "5"], "give a name, or a number from 0 to 4"),
        (["--stage", "5"], "stage 5: the model has the stages 1 to 4"),
        (["--stage", "0"], "stage 0"),
        (["--attention", "5.1"], "stage 5"),
        (["--attention", "1.3"], "block 3"),
        (["--attention", "one"], "write STAGE.BLOCK"),
        (["--attention", "1.1", "--class", "wave"], "leave out --class and --stage"),
        (["--attention", "1.1", "--token", "4,0,0"], "the clip has 4 x 64 x 64"),
        (["--attention", "1.1", "--token", "4,0"], "write frame,row,column"),
        (["--token", "1,2,3"], "name the block, too"),
    ],
)
def test_what_is_refused(run_folder, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        explain(VIDEO, "--model", str(run_folder), "--output", str(tmp_path / "out"), *options)
    assert not list((tmp_path / "out").glob("*"))


def make_clip(num_frames: int = 12, height: int = 20, width: int = 30, **changes) -> HeatedClip:
    """Makes a gray clip whose right half is hot."""
    heat = np.zeros([num_frames, height, width], np.float32)
    heat[:, :, width // 2 :] = 1
    frames = np.full([num_frames, height, width, 3], 100, np.uint8)
    numbers = np.arange(num_frames)
    clip = HeatedClip(frames, heat, 2 * numbers, 0.1 * numbers, "wave: 50 %", ["a.mp4"], [None] * num_frames)
    return clip._replace(**changes)


def test_without_heat_a_frame_is_gray_and_the_greatest_heat_is_red():
    frame = np.random.default_rng(0).integers(0, 256, [6, 8, 3], dtype=np.uint8)
    heat = np.zeros([6, 8], np.float32)
    heat[:, 4:] = 1
    drawn = draw_heat(frame, heat).astype(int)
    assert (drawn[:, :4].min(axis=2) == drawn[:, :4].max(axis=2)).all()
    hot = drawn[:, 4:]
    assert (hot[..., 0] > 120).all()
    assert (hot[..., 0] > hot[..., 1] + 60).all()
    # The picture stays visible.
    assert len(np.unique(hot.reshape(-1, 3), axis=0)) > 4


def test_a_sheet_has_eight_frames_of_each_clip_in_two_rows():
    sheet = np.asarray(draw_clips([make_clip(), make_clip()]))
    assert sheet.shape[1] == 2 * 16 + 8 * 240 + 7 * 4
    rows = (sheet[:, 20] == 100).all(axis=1)  # the level of the gray picture
    assert np.diff(rows.astype(int)).clip(min=0).sum() == 4  # two rows of two clips
    assert rows.sum() == 4 * 160
    few = draw_clips([make_clip(num_frames=3, height=20, width=20)])
    assert few.size[0] == 640 + 32


def test_a_film_shows_every_frame_and_its_sides_are_even():
    clips = [make_clip(5, 21, 33), make_clip(5, 21, 33)]
    film = list(draw_film(clips))
    assert len(film) == 10
    assert len({frame.shape for frame in film}) == 1
    assert all(side % 2 == 0 for side in film[0].shape[:2])
    # Only their times differ.
    assert not np.array_equal(film[0], film[1])
    assert np.array_equal(film[0], film[5])


def test_a_token_is_boxed_and_its_sheet_shows_the_frames_it_attends_to():
    boxes = [None] * 4 + [(4, 5, 8, 10)] * 2 + [None] * 6
    heat = make_clip().heat * np.isin(np.arange(12), [4, 5, 6])[:, None, None]
    clip = make_clip(heat=heat.astype(np.float32), boxes=boxes)
    film = list(draw_film([clip]))
    bright = [(frame[80:] == 255).all(axis=2).sum() for frame in film]
    assert bright[4] == bright[5] > bright[3] == bright[6]
    assert np.asarray(draw_clips([clip])).shape[1] < 3 * 244 + 40
