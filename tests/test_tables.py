"""Tables, paragraphs and words of `vswin.console`: numbers stay whole at any width."""

import io

import pytest
from rich.console import Console

from vswin.console import count_of, print_table, say

LINES = [
    ["Accuracy", "measured", "95 % interval", "verdict"],
    ["top-1", "78.80 %", "76.4 to 81.0", "below, but too few videos to tell"],
    ["clip top-1 (views by themselves)", "100.00 %"],
]


def shown(print_it, *arguments, width=80, is_pipe=False, **options):
    """Returns the lines that a window with so many columns, or a pipe, shows."""
    text = io.StringIO()
    is_soft = {"soft_wrap": True, "force_terminal": False} if is_pipe else {}
    print_it(Console(file=text, width=width, highlight=False, **is_soft), *arguments, **options)
    return text.getvalue().splitlines()


def test_a_table_as_wide_as_it_needs():
    assert shown(print_table, LINES, width=120, texts=(0, 3)) == [
        "Accuracy                          measured  95 % interval  verdict",
        "top-1                              78.80 %   76.4 to 81.0  below, but too few videos to tell",
        "clip top-1 (views by themselves)  100.00 %",
    ]


def test_words_are_folded():
    assert shown(print_table, LINES, width=66, texts=(0, 3)) == [
        "Accuracy             measured  95 % interval  verdict",
        "top-1                 78.80 %   76.4 to 81.0  below, but too few",
        "                                              videos to tell",
        "clip top-1 (views    100.00 %",
        "by themselves)",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 61, 100])
def test_no_number_is_ever_broken(width):
    lines = shown(print_table, LINES, width=width, texts=(0, 3))
    assert max(map(len, lines)) <= max(width, 61)
    assert all(any(number in line for line in lines) for number in ("78.80 %", "100.00 %", "76.4 to 81.0"))


def test_a_name_longer_than_its_column_is_folded_and_nothing_of_it_lost():
    lines = shown(print_table, [["file", "clips/s"], ["x" * 40, "1.5"]], width=30)
    assert lines == ["file                   clips/s", "x" * 21 + "      1.5", "x" * 19]


def test_a_pipe_has_no_end_unless_columns_says_so(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(shown(print_table, LINES, width=40, texts=(0, 3), is_pipe=True)) == 3
    assert shown(say, "one two three " * 9, width=40, is_pipe=True) == [("one two three " * 9).strip()]
    monkeypatch.setenv("COLUMNS", "40")
    assert len(shown(print_table, LINES, width=40, texts=(0, 3), is_pipe=True)) > 3


def test_what_a_terminal_would_obey_is_spelt_out():
    assert shown(print_table, [["class"], ["a\x1b[31mb[bold]"]]) == ["class", "a\\x1b[31mb[bold]"]


def test_a_paragraph_hangs_and_keeps_long_words():
    path = "/data/" + "x" * 30
    assert shown(say, f"file: {path} and more", width=20, indent=2, hanging=2) == [
        "  file:",
        f"    {path}",
        "    and more",
    ]
    assert shown(say, "one two three", width=80, widest=8) == ["one two", "three"]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "epoch", "1 epoch"),
        (0, "video", "0 videos"),
        (3200, "video", "3,200 videos"),
        (8, "class", "8 classes"),
        (0.5, "epoch", "0.5 epochs"),
        (1.0, "epoch", "1 epoch"),
    ],
)
def test_numbers_of_things(number, noun, text):
    assert count_of(number, noun) == text
