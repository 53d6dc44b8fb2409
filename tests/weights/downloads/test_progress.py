"""Tests of `vswin.weights.downloads.progress`: a bar on a terminal, lines in a log."""

import io
import logging

from rich.console import Console

from vswin.weights.downloads import progress
from vswin.weights.downloads.progress import report_progress


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind(monkeypatch, caplog):
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **options: Console(file=file, force_terminal=True, width=100))
    with caplog.at_level(logging.INFO, "vswin"), report_progress("tiny.pth", 5_000_000, 10_000_000) as advance:
        advance(2_500_000)
    assert "tiny.pth" in file.getvalue()
    assert "7.5/10.0 MB" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")
    assert caplog.text == ""


def test_a_log_gets_a_line_now_and_then(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for total, words in ((10_000_000, "7.0 of 10.0 MB (70%), 0.2 MB/s"), (None, "7.0 MB, 0.2 MB/s")):
        caplog.clear()
        with caplog.at_level(logging.INFO, "vswin"), report_progress("tiny.pth", 5_000_000, total) as advance:
            for _ in range(5):
                now[0] += 2.5
                advance(500_000)
        assert caplog.messages == [f"tiny.pth: {words}"]
