"""Tests of `download`: one file over HTTP from a server on this machine that breaks off, lies and refuses."""

import io
import logging
import random
import socket
from unittest.mock import Mock

import pytest
from rich.console import Console

from vswin.weights import download as module
from vswin.weights.download import TransferError, download

BODY = random.Random(1).randbytes(2_000_000)
NAME = "weights.pth"
# A connection that breaks or stalls loses its incomplete chunk.
CHUNK = 1 << 16


@pytest.fixture(autouse=True)
def _impatience(monkeypatch):
    monkeypatch.setattr(module, "PAUSES_SEC", (0.0, 0.0, 0.0))


@pytest.fixture
def partial(tmp_path):
    return tmp_path / f"{NAME}.partial"


@pytest.fixture
def url(server):
    server.files[NAME] = BODY
    return f"{server.url}/{NAME}"


def get(url, partial, can_resume=True):
    download(url, partial, can_resume)
    return partial.read_bytes()


@pytest.mark.parametrize("cuts", [[], [10 * CHUNK], [10 * CHUNK, 7 * CHUNK, 2 * CHUNK]])
def test_a_broken_line_is_mended_without_asking_twice_for_a_byte(url, server, partial, cuts):
    server.plan = [{"cut": cut} for cut in cuts]
    assert get(url, partial) == BODY
    offsets = [sum(cuts[:i]) for i in range(len(cuts) + 1)]
    assert server.ranges == [None, *(f"bytes={offset}-" for offset in offsets[1:])]


def test_a_line_that_breaks_again_and_again_ends_the_download_and_the_part_is_gone_on_with_later(url, server, partial):
    server.plan = [{"cut": 15 * CHUNK}, {"cut": 0}, {"cut": 0}, {"cut": 0}]
    with pytest.raises(TransferError, match=r"the connection broke.*4 tries"):
        get(url, partial)
    assert partial.read_bytes() == BODY[: 15 * CHUNK]
    assert get(url, partial) == BODY
    assert server.ranges[-1] == f"bytes={15 * CHUNK}-"


def test_a_server_that_stalls_is_left_and_gone_on_with(url, server, partial, monkeypatch):
    # Only in this test: a loaded machine may need a second to answer.
    monkeypatch.setattr(module, "STALL_SEC", 2.0)
    server.plan = [{"pause": 30.0}]
    assert get(url, partial) == BODY
    offset = int(server.ranges[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 <= len(BODY) // 2 - offset < CHUNK


@pytest.mark.parametrize(
    ("answer", "ranges"),
    [
        ({"no_ranges": True}, []),
        ({"status": 416}, [None]),
        ({"headers": {"Content-Range": f"bytes 5-{len(BODY) - 1}/{len(BODY)}"}}, [None]),
    ],
    ids=["the whole file", "no such range", "another part"],
)
def test_a_server_that_does_not_send_the_rest_is_asked_for_the_whole(url, server, partial, answer, ranges):
    server.plan = [{"cut": 15 * CHUNK}, answer]
    assert get(url, partial) == BODY
    assert server.ranges == [None, f"bytes={15 * CHUNK}-", *ranges]


def test_a_chunked_body_has_its_own_end(url, server, partial):
    server.plan = [{"chunked": True}]
    assert get(url, partial) == BODY
    partial.unlink()
    server.plan = [{"chunked": True, "cut": 15 * CHUNK}, {"status": 404}]
    with pytest.raises(TransferError, match="404"):
        get(url, partial)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 401}, "the server answered 401"),
        ({"status": 404}, "the server answered 404"),
        ({"headers": {"Content-Type": "text/html; charset=utf-8"}}, "a web page"),
        ({"headers": {"Content-Length": None}}, "does not say how long"),
        ({"length": 0}, "an empty file"),
        ({"length": "1e6"}, "does not say how long"),
    ],
)
def test_a_refusal_is_not_asked_again(url, server, partial, answer, words):
    server.plan = [answer]
    with pytest.raises(TransferError, match=words):
        get(url, partial)
    assert len(server.requests) == 1
    assert not partial.exists()


@pytest.mark.parametrize("silence", [0.0, 5.0], ids=["drops the connection", "says nothing"])
def test_a_server_that_gives_no_answer_is_asked_again(url, server, partial, monkeypatch, silence):
    if silence:
        monkeypatch.setattr(module, "STALL_SEC", 0.5)
    server.plan = [{"silence": silence}]
    assert get(url, partial) == BODY
    assert len(server.requests) == 2


def test_an_empty_body_in_chunks_is_not_a_file(url, server, partial):
    server.files[NAME] = b""
    server.plan = [{"chunked": True}]
    with pytest.raises(TransferError, match="an empty file"):
        get(url, partial)


@pytest.mark.parametrize("status", [408, 503])
def test_a_server_in_trouble_is_asked_a_few_times(url, server, partial, status):
    # Even if its Retry-After is long.
    server.plan = [{"status": status, "headers": {"Retry-After": "3600"}}] * 2
    assert get(url, partial) == BODY
    server.plan = [{"status": status}] * 20
    server.requests.clear()
    partial.unlink()
    with pytest.raises(TransferError, match=f"the server answered {status}"):
        get(url, partial)
    assert len(server.requests) == 4


def test_https_works_and_a_range_survives_a_redirect(secure_server, partial):
    secure_server.files[NAME] = BODY
    hop = {"status": 302, "headers": {"Location": f"/signed/{NAME}?key=1"}}
    secure_server.plan = [hop, {"cut": 15 * CHUNK}, hop]
    download(f"{secure_server.url}/{NAME}", partial, can_resume=True)
    assert partial.read_bytes() == BODY
    assert [request["path"] for request in secure_server.requests] == [f"/{NAME}", f"/signed/{NAME}?key=1"] * 2


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_server, partial, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(TransferError, match=r"no secure connection.*certificate"):
        download(f"{secure_server.url}/{NAME}", partial, can_resume=True)
    assert secure_server.requests == []


def test_no_server_no_proxy_and_no_name_are_told_apart_at_once(server, partial, monkeypatch):
    monkeypatch.setattr(module, "PAUSES_SEC", (60.0,))
    gone = server.url
    server.close()
    with pytest.raises(TransferError, match="refused"):
        get(f"{gone}/{NAME}", partial)
    with pytest.raises(TransferError, match="the proxy does not let it through"):
        download("https://weights.invalid/x.pth", partial, can_resume=True)
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(-3, "Temporary failure")))
    with pytest.raises(TransferError, match=r"^\[Errno -3\] Temporary failure$"):
        download("https://weights.invalid/x.pth", partial, can_resume=True)


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind(url, partial, monkeypatch, caplog):
    file = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda **options: Console(file=file, force_terminal=True, width=100))
    with caplog.at_level(logging.INFO, "vswin"):
        get(url, partial)
    assert NAME in file.getvalue()
    assert "2.0/2.0 MB" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")
    assert caplog.text == ""


@pytest.mark.parametrize("step", [{}, {"chunked": True}])
def test_a_log_gets_a_line_now_and_then(url, server, partial, monkeypatch, caplog, step):
    server.plan = [step]
    seconds = iter(range(0, 10_000, 7))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    with caplog.at_level(logging.INFO, "vswin"):
        get(url, partial)
    first = "0.1 MB" if step else "0.1 of 2.0 MB (7%)"
    assert caplog.messages[0] == f"{NAME}: {first}"
    assert 10 < len(caplog.messages) < 20
