"""Make the built-in data set `motion` on first use: eight classes that differ only in motion.

Each object of a clip has four coordinates (x, y, angle, logarithm of size), and all four are periodic: an object that
leaves the frame on the left enters on the right, and the smallest size follows the largest. The initial phases are
uniform and independent of the class, and the class only moves one coordinate along its circle. Single frames therefore
have the same distribution for all classes: a model that sees one frame cannot beat chance.
"""

import json
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.progress import track

from vswin.cluster import count_cores
from vswin.console import Console
from vswin.errors import InputError

# Class -> (moving coordinate, direction). y grows downwards and the angle clockwise, as in images.
X, Y, ANGLE, SIZE = range(4)
MOTIONS = {
    "move_down": (Y, 1),
    "move_left": (X, -1),
    "move_right": (X, 1),
    "move_up": (Y, -1),
    "rotate_clockwise": (ANGLE, 1),
    "rotate_counterclockwise": (ANGLE, -1),
    "zoom_in": (SIZE, 1),
    "zoom_out": (SIZE, -1),
}
SUBSETS = ("train", "val")
NUM_VIDEO_FRAMES = 10
FRAME_SIZE = 64
FRAME_RATE = 10.0
JPEG_QUALITY = 90

_MARKER = "motion.json"
_MIN_RADIUS, _OCTAVES = 6.0, 1.5
_MIN_SPEED, _MAX_SPEED = 0.035, 0.075  # fractions of the full circle per frame
_OVERSAMPLING = 3  # rows and columns drawn per row and column of a frame
_MARGIN = 20  # pixels around the frame, more than any object reaches
_FRACTION_BITS = 8  # fractional bits of OpenCV's fixed-point coordinates
_CIRCLE = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
# Outlines of the shapes in units of their radius; all are elongated, so that rotation is visible.
_SHAPES = (
    np.array([(-1.0, -0.4), (1.0, -0.4), (1.0, 0.4), (-1.0, 0.4)]),
    np.array([(1.0, 0.0), (-0.8, 0.55), (-0.8, -0.55)]),
    np.stack([np.cos(_CIRCLE), 0.45 * np.sin(_CIRCLE)], axis=-1),  # [24, 2]
    np.array([(1.0, 0.0), (0.2, 0.6), (0.2, 0.25), (-1.0, 0.25), (-1.0, -0.25), (0.2, -0.25), (0.2, -0.6)]),
)


@dataclass(frozen=True)
class MotionPlan:
    """Describes the contents of the folder; the marker file repeats it, so a folder of another plan is detected."""

    version: int = 1
    seed: int = 0
    train_per_class: int = 400
    val_per_class: int = 50


class Scene(NamedTuple):
    """A clip before motion starts: O objects on a plain background; colours are BGR, 0..255."""

    ground: np.ndarray  # colour of the background, [3]
    colours: np.ndarray  # of the objects, [O, 3]
    shapes: np.ndarray  # index of each object's outline, [O]
    phases: np.ndarray  # where each coordinate starts on its circle, float64 [O, 4] in [0, 1)
    speeds: np.ndarray  # phase change of the moving coordinate per frame, float64 [O]


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draws four or five objects, independently of the class."""
    # Pale objects on a dark background: all edges have similar contrast, so small models learn quickly.
    num_objects = int(rng.integers(4, 6))
    return Scene(
        ground=rng.integers(0, 17, 3),
        colours=rng.integers(200, 256, (num_objects, 3)),
        shapes=rng.integers(0, len(_SHAPES), num_objects),
        phases=rng.random((num_objects, 4)),
        speeds=rng.uniform(_MIN_SPEED, _MAX_SPEED, num_objects),
    )


def object_states(scene: Scene, class_name: str) -> np.ndarray:
    """Moves one coordinate of each object: phases (x, y, angle, size), float64 [T, O, 4] in [0, 1)."""
    coordinate, direction = MOTIONS[class_name]
    states = np.tile(scene.phases, (NUM_VIDEO_FRAMES, 1, 1))  # [T, O, 4]
    times = np.arange(NUM_VIDEO_FRAMES)[:, np.newaxis]  # [T, 1]
    states[:, :, coordinate] += direction * times * scene.speeds
    return states % 1.0


def render_frames(scene: Scene, states: np.ndarray) -> np.ndarray:
    """Draws the objects in these states, [T, O, 4]; they wrap around the edges of the frame, uint8 BGR [T, H, W, 3]."""
    contours = [_contours(_SHAPES[shape], states[:, index]) for index, shape in enumerate(scene.shapes)]
    frames = np.empty((len(states), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    # Frames are drawn larger and averaged, so that sub-pixel motion shows in the edges. The margin is needed because
    # OpenCV leaves stray pixels where it clips a polygon.
    canvas_size = _OVERSAMPLING * (FRAME_SIZE + 2 * _MARGIN)
    blank = np.full((canvas_size, canvas_size, 3), scene.ground, np.uint8)
    inside = slice(_OVERSAMPLING * _MARGIN, _OVERSAMPLING * (_MARGIN + FRAME_SIZE))
    for time, frame in enumerate(frames):
        canvas = blank.copy()
        for colour, copies in zip(scene.colours.tolist(), contours, strict=True):
            cv2.fillPoly(canvas, list(copies[time]), colour, shift=_FRACTION_BITS)
        cv2.resize(canvas[inside, inside], (FRAME_SIZE, FRAME_SIZE), dst=frame, interpolation=cv2.INTER_AREA)
    return frames


def _contours(shape: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Places points [P, 2] at phases [T, 4]: int32 [T, 9, P, 2], one copy in the frame and in each of 8 neighbours."""
    angles = 2.0 * np.pi * states[:, ANGLE]
    radii = _MIN_RADIUS * 2.0 ** (_OCTAVES * states[:, SIZE])
    cosines, sines = radii * np.cos(angles), radii * np.sin(angles)
    turns = np.stack([np.stack([cosines, sines], -1), np.stack([-sines, cosines], -1)], axis=1)  # [T, 2, 2]
    points = shape @ turns + FRAME_SIZE * states[:, np.newaxis, [X, Y]]  # [T, P, 2]
    shifts = FRAME_SIZE * np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(9, 1, 2)  # [9, 1, 2]
    # OpenCV's integer coordinates are pixel centres.
    copies = _OVERSAMPLING * (points[:, np.newaxis] + shifts + _MARGIN) - 0.5  # [T, 9, P, 2]
    return np.rint(copies * 2**_FRACTION_BITS).astype(np.int32)


def clip_frames(plan: MotionPlan, subset: str, class_name: str, number: int) -> np.ndarray:
    """Makes the frames of a video, uint8 BGR [T, H, W, 3]; `number` is its number in its class, from 1."""
    rng = np.random.default_rng([plan.seed, SUBSETS.index(subset), list(MOTIONS).index(class_name), number])
    scene = draw_scene(rng)
    return render_frames(scene, object_states(scene, class_name))


def prepare_motion(root: Path, plan: MotionPlan | None = None) -> None:
    """Makes the videos unless they exist: root/{train,val}/<class>/00001.avi and so on.

    They are written to a folder beside `root`, which is renamed when complete. So `root` is never incomplete, and if
    several processes start at once, the first to finish wins. What others put there is left alone, with an error.
    """
    plan = plan or MotionPlan()
    if _is_made(root, plan):
        return
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        _write_videos(partial, plan)
        (partial / _MARKER).write_text(json.dumps(asdict(plan), indent=2) + "\n")
        try:
            partial.rename(root)
        except OSError:
            if not _is_made(root, plan):
                raise
    except OSError as error:
        raise InputError(
            f"The motion videos cannot be written to {root}: {error}. Set dataset.root to a folder that can be "
            "written to."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_made(root: Path, plan: MotionPlan) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _MARKER).read_text())
    except (OSError, ValueError):
        raise InputError(
            f"{root} was not made by vswin: it has no readable {_MARKER}. It is left as it is; set dataset.root to "
            "a folder that does not exist yet, or remove this one."
        ) from None
    if found != asdict(plan):
        raise InputError(
            f"{root} holds the motion data set as {found}, and this version makes {asdict(plan)}. Remove the "
            "folder, or set dataset.root to another one."
        )
    return True


def _write_videos(folder: Path, plan: MotionPlan) -> None:
    """Writes all videos of a plan with one thread per core; OpenCV releases Python's lock."""
    paths: list[Path] = []
    jobs: list[tuple[str, str, int]] = []
    for subset, count in zip(SUBSETS, (plan.train_per_class, plan.val_per_class), strict=True):
        for class_name in MOTIONS:
            (folder / subset / class_name).mkdir(parents=True)
            for number in range(1, count + 1):
                paths.append(folder / subset / class_name / f"{number:05d}.avi")
                jobs.append((subset, class_name, number))
    console = Console(is_stderr=True)
    title = f"Making the motion data set, {len(jobs):,} short videos"
    if not console.is_terminal:
        console.print(title)
    with ThreadPoolExecutor(count_cores()) as pool:
        written = pool.map(lambda path, job: write_video(path, clip_frames(plan, *job)), paths, jobs)
        for _ in track(written, title, len(jobs), console=console, disable=not console.is_terminal):
            pass


def write_video(path: Path, frames: np.ndarray) -> None:
    """Writes frames, uint8 BGR [T, 64, 64, 3], as an AVI of Motion JPEG."""
    # OpenCV's own encoder codes each frame independently at a fixed quality. With a rate-controlled encoder, the
    # quality of a single frame would reveal the motion.
    encoder = cv2.VideoWriter.fourcc(*"MJPG")
    size = (FRAME_SIZE, FRAME_SIZE)
    quality = (cv2.VIDEOWRITER_PROP_QUALITY, JPEG_QUALITY)
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, encoder, FRAME_RATE, size, quality)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {path}")
    for frame in frames:
        writer.write(frame)
    writer.release()
