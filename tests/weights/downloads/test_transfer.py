"""Tests of `vswin.weights.downloads.transfer` against a server on this machine that breaks off, lies and refuses."""

import logging
import random
import socket
from unittest.mock import Mock

import pytest

from vswin.errors import InputError
from vswin.weights.downloads import transfer
from vswin.weights.downloads.transfer import TransferError, discard, download

BODY = random.Random(0).randbytes(3_000_000)
NAME = "weights.pth"


@pytest.fixture(autouse=True)
def _impatience(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES_SEC", (0.0, 0.0, 0.0))


@pytest.fixture
def partial(tmp_path):
    return tmp_path / f"{NAME}.partial"


@pytest.fixture
def url(server):
    server.files[NAME] = BODY
    return f"{server.url}/{NAME}"


def get(url, partial):
    download(url, partial, allow_http=True)
    return partial.read_bytes()


def test_a_file_comes_whole(url, server, partial):
    assert get(url, partial) == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize("cuts", [[1_000_000], [1_000_000, 500_001], [10, 20, 30, 40, 50, 60]])
def test_a_broken_line_is_mended_without_asking_twice_for_a_byte(url, server, partial, cuts):
    server.plan = [{"cut": cut} for cut in cuts]
    assert get(url, partial) == BODY
    offsets = [sum(cuts[:i]) for i in range(len(cuts) + 1)]
    assert server.ranges == [None, *(f"bytes={offset}-" for offset in offsets[1:])]
    assert server.bytes_sent == len(BODY)


def test_a_line_that_brings_nothing_any_more_ends_the_download_and_the_part_is_gone_on_with_later(url, server, partial):
    server.plan = [{"cut": 1_000_000}, {"cut": 0}, {"cut": 0}, {"cut": 0}]
    with pytest.raises(TransferError, match=r"the line broke.*3 tries in a row"):
        get(url, partial)
    assert partial.read_bytes() == BODY[:1_000_000]
    assert get(url, partial) == BODY
    assert server.bytes_sent == len(BODY)


def test_a_server_that_stalls_is_left_and_gone_on_with(url, server, partial, monkeypatch):
    # For this test alone: a loaded machine may need a second for an answer.
    monkeypatch.setattr(transfer, "STALL_SEC", 2.0)
    server.plan = [{"pause": 30.0}]
    assert get(url, partial) == BODY
    offset = int(server.ranges[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 <= len(BODY) // 2 - offset < transfer.CHUNK_BYTES


def test_a_slow_server_is_waited_for(url, server, partial):
    server.plan = [{"pause": 1.0}]
    assert get(url, partial) == BODY
    assert server.ranges == [None]


def test_a_server_without_ranges_starts_anew(url, server, partial):
    server.plan = [{"cut": 2_000_000}, {"no_ranges": True}]
    assert get(url, partial) == BODY
    assert server.ranges == [None, "bytes=2000000-"]
    assert server.bytes_sent == 2_000_000 + len(BODY)


def test_a_server_that_starts_anew_for_ever_is_given_up(url, server, partial):
    server.plan = [{"cut": 2_000_000, "no_ranges": True}] * 20
    with pytest.raises(TransferError, match="tries in a row"):
        get(url, partial)
    assert len(server.requests) == 4


def test_a_file_that_changed_between_two_parts_starts_anew(url, server, partial):
    server.plan = [{"cut": 1_000_000, "etag": '"old"'}]
    assert get(url, partial) == BODY
    assert server.ranges == [None, "bytes=1000000-"]
    assert server.bytes_sent == 1_000_000 + len(BODY)


def test_a_part_of_another_file_is_not_glued_to_the_first(url, server, partial):
    # This server ignores If-Range and gives the rest of a file with another ETag, or of another length.
    for lie in ({"ETag": '"two"'}, {"Content-Range": f"bytes 1000000-{len(BODY) - 1}/{len(BODY) + 1}"}):
        server.plan = [{"cut": 1_000_000}, {"headers": lie}]
        server.requests.clear()
        assert get(url, partial) == BODY
        assert server.ranges == [None, "bytes=1000000-", None]
        discard(partial)


def test_without_etag_and_date_a_part_is_not_gone_on_with(url, server, partial):
    server.plan = [{"cut": 1_000_000, "headers": {"ETag": None}}]
    assert get(url, partial) == BODY
    assert server.ranges == [None, None]


def test_a_refused_range_starts_anew(url, server, partial):
    server.plan = [{"cut": 1_000_000}, {"status": 416}]
    assert get(url, partial) == BODY
    assert server.ranges == [None, "bytes=1000000-", None]


def test_a_part_of_another_address_is_not_gone_on_with(url, server, partial):
    server.files["other.pth"] = b"other" * 500_000
    server.plan = [{"cut": 1_000_000}, {"status": 404}, {"status": 404}]
    for address in (url, f"{server.url}/other.pth"):
        with pytest.raises(TransferError, match="404"):
            get(address, partial)
    # An address that gives nothing leaves the part for the one it is of.
    assert partial.read_bytes() == BODY[:1_000_000]
    assert get(f"{server.url}/other.pth", partial) == server.files["other.pth"]
    assert server.ranges[-1] is None


def test_a_part_without_its_note_or_longer_than_the_file_is_thrown_away(url, server, partial):
    partial.write_bytes(b"x" * 100)
    assert get(url, partial) == BODY
    partial.write_bytes(BODY + b"x")
    assert get(url, partial) == BODY
    assert server.ranges == [None, None]


def test_a_part_that_is_whole_needs_no_server(url, server, partial):
    get(url, partial)
    assert get(url, partial) == BODY
    assert len(server.requests) == 1


def test_a_length_that_is_announced_but_never_sent_is_an_error(url, server, partial):
    server.plan = [{"length": len(BODY) + 1}] + [{"cut": 0}] * 9
    with pytest.raises(TransferError, match="tries in a row"):
        get(url, partial)


def test_a_chunked_body_has_its_own_end(url, server, partial):
    server.plan = [{"chunked": True}]
    assert get(url, partial) == BODY
    discard(partial)
    server.plan = [{"chunked": True, "cut": 1_000_000}, {"status": 404}]
    with pytest.raises(TransferError, match="404"):
        get(url, partial)


def test_a_body_without_length_or_end_is_refused(url, server, partial):
    server.plan = [{"headers": {"Content-Length": None}}]
    with pytest.raises(TransferError, match="does not say how long"):
        get(url, partial)
    assert not partial.exists()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(url, server, partial, status):
    server.plan = [{"status": status}]
    with pytest.raises(TransferError, match=f"the server answered {status}"):
        get(url, partial)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_in_trouble_is_asked_a_few_times(url, server, partial, status, caplog):
    server.plan = [{"status": status}, {"status": status}]
    with caplog.at_level(logging.WARNING, "vswin"):
        assert get(url, partial) == BODY
    assert caplog.text.count(f"the server answered {status}") == 2
    server.plan = [{"status": status}] * 20
    server.requests.clear()
    discard(partial)
    with pytest.raises(TransferError, match=f"{status}.*3 tries in a row"):
        get(url, partial)
    assert len(server.requests) == 3


def test_a_web_page_is_no_file(url, server, partial):
    server.plan = [{"headers": {"Content-Type": "text/html; charset=utf-8"}}]
    with pytest.raises(TransferError, match="a web page"):
        get(url, partial)
    assert not partial.exists()


def test_an_empty_file_is_an_error(server, partial):
    server.files[NAME] = b""
    with pytest.raises(TransferError, match="an empty file"):
        get(f"{server.url}/{NAME}", partial)


def test_http_is_refused_unless_allowed(url, server, partial):
    with pytest.raises(TransferError, match="not https"):
        download(url, partial)
    assert server.requests == []


def test_https_works_and_its_redirects_must_stay_https(secure_server, server, partial):
    for one in (secure_server, server):
        one.files[NAME] = BODY
    secure_server.plan = [{"status": 302, "headers": {"Location": f"/signed/{NAME}?key=1"}}]
    download(f"{secure_server.url}/{NAME}", partial)
    assert partial.read_bytes() == BODY
    assert [request["path"] for request in secure_server.requests] == [f"/{NAME}", f"/signed/{NAME}?key=1"]
    discard(partial)
    secure_server.plan = [{"status": 302, "headers": {"Location": f"{server.url}/{NAME}"}}]
    with pytest.raises(TransferError, match="redirects to, is not https"):
        download(f"{secure_server.url}/{NAME}", partial)
    assert (server.requests, partial.exists()) == ([], False)


def test_a_range_survives_a_redirect(secure_server, partial):
    secure_server.files[NAME] = BODY
    hop = {"status": 302, "headers": {"Location": f"/signed/{NAME}"}}
    secure_server.plan = [hop, {"cut": 1_000_000}, hop]
    download(f"{secure_server.url}/{NAME}", partial)
    assert partial.read_bytes() == BODY
    assert secure_server.bytes_sent == len(BODY)


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_server, partial, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(TransferError, match=r"no secure connection.*certificate"):
        download(f"{secure_server.url}/{NAME}", partial)
    assert secure_server.requests == []


def test_redirects_in_a_circle_end(url, server, partial):
    server.plan = [{"status": 302, "headers": {"Location": f"/{NAME}"}}] * 50
    with pytest.raises(TransferError, match="redirects"):
        get(url, partial)


def test_no_server_no_proxy_and_no_name_are_told_apart(server, partial, monkeypatch):
    gone = server.url
    server.close()
    with pytest.raises(TransferError, match="refused"):
        get(f"{gone}/{NAME}", partial)
    with pytest.raises(TransferError, match="the proxy does not let it through"):
        download("https://weights.invalid/x.pth", partial)
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(-3, "Temporary failure")))
    with pytest.raises(TransferError, match=r"there is no network: \[Errno -3\] Temporary failure$"):
        download("https://weights.invalid/x.pth", partial)


def test_a_disk_without_room_is_noticed_before_it_is_full(url, partial, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: transfer.shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(InputError, match=rf"3 MB are to be downloaded to {partial.parent}.*VSWIN_CACHE"):
        get(url, partial)
    assert not partial.exists()
