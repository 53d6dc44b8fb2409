"""Start a peer from `compare.py`, and exchange messages with it; see `protocol.py`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType

from protocol import Case

_OURS = ("TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL")


class PeerError(Exception):
    """A peer cannot do its task; the message says why."""


class PeerProcess:
    """Starts a peer and runs it; as a context manager, it ends the peer after the block.

    Args:
        command: starts the peer, without the case.
        case: the task of the peer.

    Attributes:
        versions: package -> version, as reported by the peer.

    Raises:
        PeerError: if the peer cannot do its task, or its process ends.
    """

    def __init__(self, command: Sequence[str], case: Case) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with this object)
        arguments = [*command, json.dumps(asdict(case))]
        # Variables that vswin sets on import must not reach the peers.
        environment = {key: value for key, value in os.environ.items() if key not in _OURS}
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
            bufsize=1,
        )
        try:
            self.versions: dict[str, str] = self._answer()["ready"]
        except PeerError:
            self.close()
            raise

    def __enter__(self) -> PeerProcess:
        """Returns the running peer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the process."""
        self.close()

    def run(self) -> float:
        """Runs the peer once; returns the seconds of the run."""
        return self._ask("run")["seconds"]

    def peaks(self) -> tuple[float, float]:
        """Asks for the peak memory of the peer in GB: before its first run, and until now."""
        answer = self._ask("peak")
        return answer["before_gb"], answer["peak_gb"]

    def close(self) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._log.close()

    def _ask(self, request: str) -> dict:
        with suppress(BrokenPipeError):
            print(request, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it printed nothing"])[-1]
            raise PeerError(f"its process ended with code {code}: {last}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer
