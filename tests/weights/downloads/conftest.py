"""A file server on this machine that can misbehave."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CERTIFICATE = Path(__file__).with_name("localhost.pem")


class FileServer:
    """Serves `files` (bytes by name), follows a plan for the first requests, and records all `requests`.

    Each request takes the first entry of `plan`, a dict with any of `status`, `headers`, `cut` (bytes until the line
    breaks), `pause` (after the first half: seconds, or an event to wait for), `no_ranges`, `chunked`, `length`
    (announced) and `silence` (seconds until the connection is dropped without an answer). An entry of `requests` has
    the name, the path and the requested range.
    """

    def __init__(self, is_secure: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: list[dict] = []
        self.requests: list[dict] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.daemon_threads = True
        if is_secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if is_secure else ''}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def ranges(self) -> list[str | None]:
        return [request["range"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        step = self.plan.pop(0) if self.plan else {}
        name = handler.path.split("/")[-1]
        asked = handler.headers.get("Range")
        self.requests.append({"name": name, "path": handler.path, "range": asked})
        if "silence" in step:
            time.sleep(step["silence"])
            handler.close_connection = True
            return
        body = self.files.get(name.split("?")[0])
        status = step.get("status", 404 if body is None else 200)
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", asked or "")
        if status == 200 and wanted and not step.get("no_ranges"):
            status, start = 206, int(wanted[1])
        headers = {"Connection": "close", "Content-Type": "application/octet-stream"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        part = body[start:] if status in (200, 206) else b""
        if step.get("chunked"):
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(step.get("length", len(part)))
        handler.send_response(status)
        for key, value in (headers | step.get("headers", {})).items():
            if value is not None:
                handler.send_header(key, value)
        handler.end_headers()
        self._send(handler, part[: step.get("cut")], step)
        handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, part: bytes, step: dict) -> None:
        """Sends a body, in two pieces if there is a pause."""
        if step.get("chunked"):
            part = b"%x\r\n%s\r\n" % (len(part), part) + (b"" if "cut" in step else b"0\r\n\r\n")
        pause = step.get("pause")
        half = len(part) // 2 if pause else len(part)
        try:
            for piece in (part[:half], part[half:]):
                handler.wfile.write(piece)
                handler.wfile.flush()
                if isinstance(pause, threading.Event):
                    pause.wait(60)
                elif pause:
                    time.sleep(pause)
                pause = None
        except OSError:
            return

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves files over http; all other machines are behind a proxy that does not exist."""
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{_closed_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = FileServer()
    yield running
    running.close()


@pytest.fixture
def secure_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves files over https, with a certificate that `requests` is told to trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = FileServer(is_secure=True)
    yield running
    running.close()


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
