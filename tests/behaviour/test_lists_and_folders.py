"""How commands read lists, class folders and labels as people have them."""

import csv
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import imageio_ffmpeg
import pytest

from vswin.cli import main
from vswin.evaluation.run import run_evaluation
from vswin.training.run import run_training

TINY = (
    *("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]"),
    *("clip.num_frames=4", "clip.resize=32", "clip.crop=32", "clip.num_clips=1", "clip.num_crops=1"),
)
NFC, NFD = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))


@pytest.fixture
def vswin(monkeypatch, capsys):
    """Runs a command and returns its output with the message that ended it."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vswin", *map(str, arguments)])
        ended = ""
        try:
            main()
        except SystemExit as exit_code:
            ended = str(exit_code.code)
        # Names are printed in their own Unicode normalization.
        return unicodedata.normalize("NFC", capsys.readouterr().out + ended)

    return run


@pytest.fixture
def check(vswin, small_videos, tmp_path):
    """Checks the small videos by lists or folders; returns the output and the class of each video."""

    def run(*overrides, root=small_videos):
        clean = tmp_path / "clean"
        keys = ("clip.num_frames=4", "clip.crop=32", f"clean_lists={clean}", f"report={tmp_path / 'report.csv'}")
        text = vswin("data", "check", "dataset=folder", f"dataset.root={root}", *keys, *overrides)
        rows = []
        for path in sorted(clean.glob("*.csv")):
            rows += list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            path.unlink()
        assert len(rows) == len({row["path"] for row in rows})
        return text, {row["path"]: row["label"] for row in rows}

    return run


@pytest.fixture
def listed(check, tmp_path):
    """Checks the small videos with a training list of this text."""

    def run(text, name="list.txt", encoding="utf-8", *overrides):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return check(f"dataset.train_list={path}", *overrides)

    return run


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


FILES = [("bright/0.avi", "jump"), ("bright/1.avi", "jump"), ("dark/0.avi", "run fast"), ("dark/1.avi", "run fast")]


def lines(form, header="", **words):
    """Writes a line for each file."""
    rows = [
        form.format(path=path, name=label, word=label.split()[0], index=int(label != "jump"), number=number)
        for number, (path, label) in enumerate(FILES)
    ]
    return "\n".join([*([header] if header else []), *rows, ""])


@pytest.mark.parametrize(
    ("text", "name", "encoding", "label", "unused"),
    [
        (lines("{path} 12 {index}"), "list.txt", "utf-8", "index", "the column frames"),
        (lines("{path}\t12\t{name}"), "list.txt", "utf-8", "name", "the column frames"),
        (lines("{path} 12 {index}", "path frames label"), "list.txt", "utf-8", "index", "the column frames"),
        (lines("{path}\t{name}"), "list.txt", "utf-8", "name", ""),
        (lines("{path} {word}").replace("bright/0", "bright\\0"), "list.txt", "utf-8", "word", ""),
        (lines("{path}\t{name}", "path\tlabel"), "list.tsv", "utf-16", "name", ""),
        (lines("{name}\t{path}\t3", "\ufeffClass\tFile name\tRoom"), "a.tsv", "utf-16-be", "name", "the column Room"),
        (lines("{path},{name}", "file_name,label"), "list.csv", "utf-8-sig", "name", ""),
        (lines("x,{path},{index}", "clip_name,clip_path,label"), "a.csv", "utf-8", "index", "the column clip_name"),
        (lines("{number},{path},{name}", ",video_path,label"), "list.csv", "utf-8", "name", "the column (no name)"),
        (lines("{path},{name},{number},train", "video,label,group,split"), "a.csv", "utf-8", "name", ""),
        (lines("{path};{name}"), "list.csv", "utf-8", "name", ""),
        (lines("{name};{path}", "label;path").replace("\n", "\r\n"), "list.csv", "utf-8-sig", "name", ""),
        (lines('"{path}" "{name}"'), "list.txt", "utf-8", "name", ""),
        (lines("'{path}' {word}"), "list.txt", "utf-8", "word", ""),
        (lines('"{path}"\t"{name}"'), "list.txt", "utf-8", "name", ""),
        (lines('"{path}","{name}"'), "list.csv", "utf-8", "name", ""),
    ],
)
def test_a_list_is_understood_in_every_form(listed, tmp_path, text, name, encoding, label, unused):
    printed, labels = listed(text, name, encoding)
    kinds = {"word": ("jump", "run"), "index": ("0", "1"), "name": ("jump", "run fast")}
    assert labels == {path: kinds[label][known != "jump"] for path, known in FILES}
    assert (f"not used of {tmp_path / name}: {unused}\n" in printed) if unused else ("not used of" not in printed)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ('bright/0.avi,"a\ndark/0.avi,b\n', "l.csv", ["l.csv:2: expected `path,label`, found 'bright/0.avi"]),
        ("path,label\nbright/0.avi,a\nbright/1.avi\n", "l.csv", ["l.csv:3: expected `path,label`", "'bright/1.avi'"]),
        ("path,label\nbright/0, 1.avi,a\n", "l.csv", ["l.csv:2: expected `path,label`, found 'bright/0, 1.avi,a'"]),
        ("bright/0.avi,a,g1\ndark/0.avi,b,g2\n", "l.csv", ["l.csv:1: expected", "'bright/0.avi,a,g1'", "video_path"]),
        ("vid,kind\nbright/0.avi,a\ndark/0.avi,b\n", "l.csv", ["l.csv:1: 'vid' is read as a path and 'kind' as a"]),
        ("bright 12 0\ndark 12 1\n", "l.txt", ["l.txt:1: bright is a folder without pictures"]),
        ("no/0.avi a\nno/1.avi b\n", "l.txt", ["2 of the 2 videos", "no/0.avi", "class 'a'; a list has lines `path"]),
        ("bright/0.avi a\n#dark/0.avi\n", "l.txt", ["l.txt:2: expected `path label`, found '#dark/0.avi'"]),
        ("bright/0.avi,a\nbright/1.avi,a\n", "l.csv", ["holds one class only, 'a'; there must be two or more"]),
        ("b\0r\0i\0", "l.txt", ["l.txt cannot be read: it holds zeros; lists are UTF-8, or UTF-16 with a byte order"]),
    ],
)
def test_a_list_that_is_not_understood_ends_with_what_was_read_and_what_is_accepted(listed, text, name, words):
    printed, labels = listed(text, name)
    assert printed.startswith("error: ")
    assert not labels
    for word in words:
        assert word in printed


def test_names_that_begin_with_a_hash_are_files_and_what_else_does_is_counted(listed, small_videos, tmp_path):
    for old, new in (("0", "#20_Rhythm_clap"), ("1", "# 1"), ("2", "#"), ("3", "#3 (a;b)&c")):
        os.rename(small_videos / f"bright/{old}.avi", small_videos / f"bright/{new}.avi")
    os.rename(small_videos / "bright/4.avi", small_videos / "# four.avi")
    comments = "# my videos\n#\n# bright/4.avi bright\n"
    names = ["bright/#20_Rhythm_clap", "bright/# 1", "bright/#", "bright/#3 (a;b)&c", "# four", "dark/0", "dark/1"]
    labels = {f"{name}.avi": name.split("/")[0].replace("# four", "bright") for name in names}
    for separator, name in ((" ", "l.txt"), (",", "l.csv"), (";", "l.csv"), ("\t", "l.txt")):
        quote = '"' * (separator == ";")
        rows = "".join(f"{quote}{path}{quote}{separator}{label}\n" for path, label in labels.items())
        for text in (comments + rows, f"file{separator}class\n{comments}{rows}"):
            printed, found = listed(text, name)
            assert found == labels
            assert f"not used of {tmp_path / name}: 3 lines of comments\n" in printed
    printed, _ = listed(rows + "#gone.avi\tbright\n")
    assert "missing: 1\n  #gone.avi: " in printed
    assert "not used" not in printed


@pytest.mark.parametrize("label", ["{index}", "{other}"])
def test_labels_that_count_from_one_are_said_to(listed, label):
    text = "".join(f"{path} {label.format(index=1 + i // 2, other=5)}\n" for i, (path, _) in enumerate(FILES))
    printed, _ = listed(text, "l.txt")
    assert ("no video has the label 0: if the labels count from 1, subtract 1" in printed) == ("index" in label)
    assert ("1 class without validation videos: 0\n" in printed) == ("index" in label)


def encode(path, *options, color="gray"):
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ("-f", "lavfi", "-i", f"testsrc=s=176x144:r=25:d=0.4,drawbox=c={color}:t=fill:w=9")
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-y", "-loglevel", "error", *source, *options, str(path)], check=True)


ENDINGS = ["ts", "mts", "wmv", "flv", "gif", "m2ts", "mpg", "vob", "ogv", "3gp", "3g2", "f4v", "m4v", "webm", "mxf"]


@pytest.fixture(scope="module")
def odd_videos(tmp_path_factory):
    """Makes class folders with videos of all kinds, some in sub-folders, and other files."""
    root = tmp_path_factory.mktemp("odd") / "videos"
    for number, ending in enumerate(ENDINGS):
        codec = {"3gp": ["-c:v", "h263"], "3g2": ["-c:v", "h263"], "mxf": ["-c:v", "mpeg2video"], "f4v": ["-f", "f4v"]}
        folder = ("hop", "run/day 1/left", "run")[number % 3]
        encode(root / folder / f"{number}.{ending.upper() if number % 2 else ending}", *codec.get(ending, []))
    others = "hop/notes.txt,run/day 1/README,run/day 1/left/0.jpg,run/a.TXT,run/.hidden/x.mp4,list.csv"
    for name in others.split(","):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no video")
    return root


def test_videos_of_any_ending_are_found_in_any_sub_folder(check, odd_videos):
    printed, labels = check(root=odd_videos)
    assert sorted(int(Path(path).stem) for path in labels) == list(range(len(ENDINGS)))
    assert all(path.startswith(f"{label}/") for path, label in labels.items())
    assert "left out of the class folders: 4 other files (2 .txt, 1 without ending, 1 .jpg)" in printed
    assert "broken" not in printed


def test_spellings_of_unicode_are_one_class_and_spellings_in_case_are_said_to_be_two(check, small_videos, listed):
    (small_videos / "raw").mkdir()
    (small_videos / ".git").mkdir()
    names = {"train": {NFC: "0", "run": "1", "Run": "2"}, "val": {NFD: "0", "run": "1", "new": "2"}}
    for (part, classes), source in zip(names.items(), ("bright", "dark"), strict=True):
        for name, number in classes.items():
            (small_videos / part / name).mkdir(parents=True)
            os.rename(small_videos / f"{source}/{number}.avi", small_videos / f"{part}/{name}/{number}.avi")
    said = (
        f"spelt in two compositions of Unicode, which count as one class: {NFC}",
        "WARNING: 'Run' and 'run' count as different classes; are they one, misspelt?",
        "1 class without training videos: new",
        "1 class without validation videos: Run",
    )
    printed, labels = check()
    assert f"not used of {small_videos}: bright, dark, raw\n" in printed
    assert "4 classes, 3 training videos, 3 validation videos" in printed
    assert set(labels.values()) == {NFC, "run", "Run", "new"}
    # The lists name the files in the other Unicode normalization.
    texts = {}
    for part, classes in names.items():
        texts[part] = "".join(
            f"{part}/{unicodedata.normalize('NFC', name)}/{number}.avi,{name}\n" for name, number in classes.items()
        )
    val_list = small_videos / "val.csv"
    val_list.write_text(texts["val"], encoding="utf-8")
    printed_by_list, labels_by_list = listed(texts["train"], "l.csv", "utf-8", f"dataset.val_list={val_list}")
    assert sorted(labels_by_list.values()) == sorted(labels.values())
    for words in said:
        assert words in printed
        assert words in printed_by_list


def test_only_file_names_mark_recordings_and_a_class_of_one_recording_has_no_validation_videos(check, small_videos):
    (small_videos / "bright").rename(small_videos / "throw_g1_left")
    for number in range(6):
        os.rename(small_videos / f"dark/{number}.avi", small_videos / f"dark/v_dark_g{number // 3:02d}_c{number}.avi")
    printed, _ = check()
    # A fifth of one class, and one of two recordings of the other.
    assert "8 training videos, 4 validation videos" in printed
    assert "without validation" not in printed
    for number in range(3):
        (small_videos / f"dark/v_dark_g00_c{number}.avi").unlink()
    assert "1 class without validation videos: dark" in check()[0]
    (small_videos / "throw_g1_left").rename(small_videos.parent / "throw")
    assert "holds one class only, 'dark'; there must be two or more" in check()[0]


def test_a_file_that_is_named_again_counts_once_however_it_is_spelt(listed, small_videos, tmp_path):
    link(small_videos / "alias", "bright")
    link(small_videos / "bright/same.avi", "0.avi")
    (tmp_path / "elsewhere").symlink_to(small_videos)
    again = ["./bright/0.avi", "dark/../bright/0.avi", f"{small_videos}/bright/0.avi", "alias/0.avi", "bright/same.avi"]
    again += [f"{tmp_path}/elsewhere/bright/0.avi", "bright//0.avi", "bright\\0.avi", "bright/0.avi"]
    once = "bright/0.avi,a\nbright/1.avi,a\ndark/0.avi,b\ndark/1.avi,b\n"
    printed, labels = listed(once + "".join(f"{path},a\n" for path in again), "l.csv")
    assert labels == {"bright/0.avi": "a", "bright/1.avi": "a", "dark/0.avi": "b", "dark/1.avi": "b"}
    assert "2 training videos, 2 validation videos" in printed
    list_path = tmp_path / "l.csv"
    assert f"videos that {list_path} names again: 9; each counts once, the first is {list_path}:5: " in printed
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [row["detail"] for row in rows if row["kind"] == "listed twice"] == [
        f"{list_path}:{n}" for n in range(5, 14)
    ]
    for path in again:
        printed, labels = listed(f"{once}{path},b\n", "l.csv")
        assert f"{list_path}:1 and {list_path}:5 name one file" in printed
        assert "labels, 'a' and 'b'" in printed


def test_links_in_class_folders_make_no_second_video_and_lead_in_no_circle(check, small_videos):
    link(small_videos / "bright/same.avi", "0.avi")
    link(small_videos / "bright/all", small_videos)
    link(small_videos / "dark/self", ".")
    printed, labels = check()
    assert sorted(labels) == [f"{name}/{number}.avi" for name in ("bright", "dark") for number in range(6)]
    assert "links to videos that are there already: 1; each video counts once" in printed
    link(small_videos / "dark/cross.avi", "../bright/1.avi")
    printed, _ = check()
    assert "bright/1.avi and " in printed
    assert "dark/cross.avi are one file with two labels, 'bright' and 'dark'" in printed


@pytest.mark.slow
def test_training_evaluation_and_prediction_find_the_same_videos_and_say_the_same(
    vswin, odd_videos, tmp_path, compose_train, compose_evaluate, capsys
):
    root, run = tmp_path / "videos", tmp_path / "run"
    videos = sorted(path for path in odd_videos.rglob("*") if path.suffix.lower() in (".ts", ".wmv", ".flv", ".mpg"))
    for number, place in enumerate((f"train/{NFC}", "train/Run", "train/run/1", f"val/{NFD}/1", "val/run")):
        (root / place).mkdir(parents=True)
        for video in videos[:2] if place == "val/run" else videos[number % 4 : number % 4 + 1]:
            (root / place / video.name).write_bytes(video.read_bytes())
        (root / place / "notes.txt").write_text("no video")
    link(root / "val/run/circle", root)
    link(root / "val/run/self", root / "val/run")

    settings = ("dataset=folder", f"dataset.root={root}", "epochs=1", "batch_size=2", "optimizer.warmup_epochs=0")
    run_training(compose_train(*TINY, *settings, f"output_dir={run}"))
    run_evaluation(compose_evaluate(f"run={run}"))
    texts = [capsys.readouterr().out, (run / "train.log").read_text(encoding="utf-8")]
    trained, tested = texts[0].split("test it on several views")
    for text in (trained, tested, texts[1]):
        for words in (
            "3 validation videos",
            "1 class without validation videos: Run",
            "WARNING: 'Run' and 'run' count as different classes",
            f"compositions of Unicode, which count as one class: {NFC}",
            "left out of the class folders: 5 other files (5 .txt)",
        ):
            assert words in unicodedata.normalize("NFC", text)

    predicted = tmp_path / "predicted.csv"
    arguments = (root / "val", f"{root}/val/**/*.[tw]*[sv]", f"{root}/val/*", f"{root}/train/../val/run/self")
    printed = vswin("predict", *arguments, "--model", run, "--csv", predicted)
    assert f"{root / 'val'}: 2 other files (2 .txt) left out" in printed
    assert len(predicted.read_text(encoding="utf-8").splitlines()) == 1 + 3


@pytest.mark.parametrize("name", ["ucf101", "kinetics400"])
def test_lists_of_raw_frames_are_read_for_their_videos(vswin, small_videos, tmp_path, name):
    os.rename(small_videos / "bright/0.avi", small_videos / "v_one.avi")
    os.rename(small_videos / "bright/1.avi", small_videos / "v_two.avi")
    path = tmp_path / "rawframes.txt"
    path.write_text("old/v_one 120 0\nold/v_two 64 1\n")
    clean = tmp_path / "clean"
    keys = (f"dataset={name}", f"dataset.root={small_videos}", f"dataset.val_list={path}", f"clean_lists={clean}")
    printed = vswin("data", "check", *keys, "clip.num_frames=4")
    assert f"not used of {path}: the column frames\n" in printed
    paths = [row["path"] for row in csv.DictReader((clean / "val.csv").read_text().splitlines())]
    assert paths == ["v_one.avi", "v_two.avi"]
