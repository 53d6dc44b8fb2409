"""Tests of vswin.data.motion: exact states, and folders that are complete or absent."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from vswin.data import motion
from vswin.data.motion import (
    MOTIONS,
    MotionPlan,
    Scene,
    clip_frames,
    object_states,
    prepare_motion,
    render_frames,
)
from vswin.errors import InputError

SMALL = MotionPlan(seed=3, train_per_class=2, val_per_class=1)


def scene_of(phases, speeds):
    count = len(phases)
    return Scene(
        ground=np.zeros(3, int),
        colours=np.full((count, 3), 255),
        shapes=np.zeros(count, int),
        phases=np.array(phases, float),
        speeds=np.array(speeds, float),
    )


def read_frames(path):
    video = cv2.VideoCapture(str(path))
    frames = []
    while (frame := video.read()[1]) is not None:
        frames.append(frame)
    return np.stack(frames)


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("class_name", MOTIONS)
def test_states_advance_in_one_coordinate_alone(class_name):
    coordinate, direction = MOTIONS[class_name]
    phases = [[0.25, 0.5, 0.75, 0.9], [0.0, 0.1, 0.2, 0.3]]
    states = object_states(scene_of(phases, [0.0625, 0.03125]), class_name)
    assert states.shape == (motion.NUM_VIDEO_FRAMES, 2, 4)
    others = [index for index in range(4) if index != coordinate]
    np.testing.assert_array_equal(
        states[:, :, others], np.tile(np.array(phases)[:, others], (motion.NUM_VIDEO_FRAMES, 1, 1))
    )
    assert sorted(MOTIONS.values()) == sorted(itertools.product(range(4), (-1, 1)))
    for index, speed in enumerate([0.0625, 0.03125]):
        expected = (phases[index][coordinate] + direction * speed * np.arange(motion.NUM_VIDEO_FRAMES)) % 1.0
        np.testing.assert_allclose(states[:, index, coordinate], expected, atol=1e-12)


@pytest.mark.parametrize("class_name", ["move_left", "zoom_in"])
def test_states_are_uniform_in_every_frame(class_name):
    scenes = [motion.draw_scene(np.random.default_rng([1, index])) for index in range(1500)]
    states = np.concatenate([object_states(scene, class_name)[[0, 5, 9]] for scene in scenes], axis=1)
    for time, coordinate in itertools.product(range(3), range(4)):
        counts, _ = np.histogram(states[time, :, coordinate], bins=10, range=(0, 1))
        # 5 standard deviations of a binomial count
        assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean() * 0.9)


def centre(frame):
    rows, columns = np.nonzero(frame[..., 0] > 127)
    return rows.mean(), columns.mean()


def test_pixels_move_as_the_states_say():
    scene = scene_of([[0.5, 0.5, 0.0, 0.0]], [4 / 64])
    right = render_frames(scene, object_states(scene, "move_right")[:4])
    down = render_frames(scene, object_states(scene, "move_down")[:4])
    for frames, axis in ((right, 1), (down, 0)):
        centres = np.array([centre(frame) for frame in frames])
        np.testing.assert_allclose(np.diff(centres[:, axis]), 4.0, atol=0.1)
        np.testing.assert_allclose(centres[:, 1 - axis], 31.5, atol=0.1)


def test_rotation_is_clockwise_on_the_screen_and_zoom_changes_the_area():
    scene = scene_of([[0.5, 0.5, 0.0, 0.5]], [1 / 32])
    frame = render_frames(scene, object_states(scene, "rotate_clockwise"))[2]
    rows, columns = np.nonzero(frame[..., 0] > 127)
    # A long bar that was horizontal: its right end has moved down.
    assert rows[columns > 36].mean() > 33 > 30 > rows[columns < 27].mean()
    scene = scene_of([[0.5, 0.5, 0.1, 0.0]], [0.05])
    areas = [(frame[..., 0] > 127).sum() for frame in render_frames(scene, object_states(scene, "zoom_in"))]
    assert areas == sorted(areas)
    assert areas[9] / areas[0] == pytest.approx(2 ** (2 * 1.5 * 0.45), rel=0.08)


def test_objects_cross_the_edges_of_the_frame():
    middle = scene_of([[0.5, 0.5, 0.1, 0.7]], [0.05])
    corner = scene_of([[0.0, 0.0, 0.1, 0.7]], [0.05])
    frame = render_frames(middle, middle.phases[np.newaxis])[0]
    np.testing.assert_array_equal(
        render_frames(corner, corner.phases[np.newaxis])[0], np.roll(frame, (32, 32), axis=(0, 1))
    )


def test_videos_are_reproducible_and_share_no_scene():
    first = clip_frames(SMALL, "train", "move_up", 1)
    assert first.shape == (motion.NUM_VIDEO_FRAMES, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, clip_frames(SMALL, "train", "move_up", 1))
    starts = {
        clip_frames(MotionPlan(seed=seed), subset, class_name, number)[0].tobytes()
        for seed, subset, class_name, number in itertools.product(
            (0, 1), ("train", "val"), ("move_up", "zoom_in"), (1, 2)
        )
    }
    assert len(starts) == 16


def test_prepare_writes_the_plan_once(tmp_path, monkeypatch):
    root = tmp_path / "below" / "videos"
    prepare_motion(root, SMALL)
    files = tree(root)
    assert len(files) == 8 * 3 + 1
    frames = read_frames(root / "val" / "zoom_out" / "00001.avi")
    expected = clip_frames(SMALL, "val", "zoom_out", 1)
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected).mean() < 3
    assert [path.name for path in root.parent.iterdir()] == ["videos"]
    (tmp_path / "again").mkdir()
    prepare_motion(tmp_path / "again", SMALL)
    assert tree(tmp_path / "again") == files
    monkeypatch.setattr(motion, "_write_videos", lambda *_: pytest.fail("made again"))
    prepare_motion(root, SMALL)


def test_folders_of_others_and_of_another_plan_are_left_alone(tmp_path):
    (tmp_path / "file.avi").write_bytes(b"x")
    with pytest.raises(InputError, match=r"was not made by vswin.*dataset\.root"):
        prepare_motion(tmp_path, SMALL)
    with pytest.raises(InputError, match=r"cannot be written.*Set dataset\.root"):
        prepare_motion(tmp_path / "file.avi" / "videos", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["file.avi"]
    prepare_motion(tmp_path / "videos", SMALL)
    with pytest.raises(InputError, match=r"'seed': 3.*'seed': 0.*Remove"):
        prepare_motion(tmp_path / "videos", MotionPlan())


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    made = []

    def write_three(path, frames):
        made.append(path)
        if len(made) > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(motion, "write_video", write_three)
    with pytest.raises(KeyboardInterrupt):
        prepare_motion(tmp_path / "videos", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_starting_at_once_is_safe(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: prepare_motion(tmp_path / "videos", SMALL), range(3)))
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
    assert len(tree(tmp_path / "videos")) == 25


@pytest.mark.slow
def test_one_frame_does_not_give_the_motion_away_but_several_do(tmp_path):
    prepare_motion(tmp_path / "videos", MotionPlan(train_per_class=80, val_per_class=40))
    frames, motions, labels = {}, {}, {}
    for subset in ("train", "val"):
        paths = sorted((tmp_path / "videos" / subset).glob("*/*.avi"))
        clips = np.stack([read_frames(path) for path in paths]).mean(axis=-1)  # [N, T, 64, 64]
        small = clips.reshape(len(paths), 10, 16, 4, 16, 4).mean(axis=(3, 5))  # [N, T, 16, 16]
        change = np.diff(small, axis=1)
        flow = [(np.gradient(small[:, :-1], axis=axis) * change).sum(axis=(1, 2, 3)) for axis in (2, 3)]
        frames[subset] = small[:, 5].reshape(len(paths), -1)
        motions[subset] = np.stack([*flow, change.sum(axis=(1, 2, 3))], axis=-1)
        labels[subset] = [path.parent.name for path in paths]
    scores = [
        RandomForestClassifier(100, random_state=0)
        .fit(kind["train"], labels["train"])
        .score(kind["val"], labels["val"])
        for kind in (frames, motions)
    ]
    assert scores[0] < 1.5 / len(MOTIONS) < 0.5 < scores[1]
