import cv2
import numpy as np
from PIL import Image

from vswin.data.contact_sheet import Panel, draw_sheet, outline, save_sheets, thumbnail

RED, BLUE = np.full((20, 30, 3), (255, 0, 0), np.uint8), np.full((20, 50, 3), (0, 0, 255), np.uint8)


def test_images_stand_in_rows_and_columns_below_the_text():
    sheet = np.asarray(draw_sheet([Panel("title", ["line"], [[RED, BLUE], [BLUE, RED]])]))
    rows, columns = np.nonzero((sheet == (255, 0, 0)).all(axis=2))
    assert len(rows) == 2 * 20 * 30
    blue_rows, blue_columns = np.nonzero((sheet == (0, 0, 255)).all(axis=2))
    assert rows.min() == blue_rows.min()
    assert columns.min() == blue_columns.min()
    assert columns.max() - columns.min() + 1 == 50 + 4 + 30
    assert (sheet[: rows.min()] < 200).any()


def test_sides_are_even_and_long_lines_are_broken():
    short = draw_sheet([Panel("title", ["word"], [])])
    long = draw_sheet([Panel("title", ["word " * 100], [])])
    assert short.size[0] == long.size[0]
    assert long.size[1] > short.size[1] + 18
    assert all(side % 2 == 0 for side in (*short.size, *long.size))
    assert draw_sheet([Panel("", [], [[np.zeros((11, 777, 3), np.uint8)]])]).size[0] % 2 == 0


def test_thumbnails_keep_proportions_and_boxes_have_edges():
    assert thumbnail(np.zeros((100, 150, 3), np.uint8), 50).shape == (50, 75, 3)
    assert thumbnail(np.zeros((10, 15, 3), np.uint8), 50).shape == (50, 75, 3)
    frame = np.zeros((40, 60, 3), np.uint8)
    edges = np.argwhere(outline(frame, 5, 10, 20, 30).any(axis=2))
    assert (edges.min(axis=0).tolist(), edges.max(axis=0).tolist()) == ([5, 10], [24, 39])
    assert not frame.any()


def test_pictures_and_films_are_written(tmp_path):
    sheets = [draw_sheet([Panel(f"frame {i}", [], [[np.full((16, 16, 3), 40 * i, np.uint8)]])]) for i in range(5)]
    for name in ("new/a.png", "new/a.gif", "new/a.mp4"):
        save_sheets(sheets, tmp_path / name, 10)
    with Image.open(tmp_path / "new" / "a.png") as sheet:
        assert sheet.size == sheets[0].size
    with Image.open(tmp_path / "new" / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (5, sheets[0].size, 100, 0)
    capture = cv2.VideoCapture(str(tmp_path / "new" / "a.mp4"))
    frames = [capture.read()[1] for _ in range(5)]
    capture.release()
    assert frames[0].shape == (sheets[0].size[1], sheets[0].size[0], 3)
    assert len(list((tmp_path / "new").iterdir())) == 3
