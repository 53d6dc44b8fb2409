"""Damages files and has them read, for as long as one likes: `make fuzz ARGS="--minutes 30"`.

Each target runs in a process of its own, which is watched: a crash or a hang ends that process alone, is counted,
and the file that did it is kept with the others that went wrong. An input whose answer was not seen before is
damaged further. `--replay FOLDER` reads one kept input again.
"""

import argparse
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
_STATUS = struct.Struct("<QQQd")  # inputs begun, inputs read, uncaught exceptions, when the last input began
_POOL_SIZE = 300
_MEMORY_BYTES = 16 * 2**30


def main() -> int:
    """Runs the command; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all targets together (5)")
    parser.add_argument("--targets", nargs="*", default=[], help="those to run (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (0)")
    parser.add_argument("--hang-sec", type=float, default=20.0, help="after which an input counts as a hang (20)")
    parser.add_argument("--findings", type=Path, default=Path("outputs/fuzz"), help="where inputs are kept")
    parser.add_argument("--replay", type=Path, help="a kept input, <findings>/<target>/<what>: read it alone")
    parser.add_argument("--child", nargs=2, metavar=("TARGET", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay:
        return _replay(arguments.replay)
    if arguments.child:
        return _fuzz(arguments.child[0], Path(arguments.child[1]), arguments.seed, arguments.findings)
    from fuzz_targets import TARGETS

    names = arguments.targets or list(TARGETS)
    unit = 60 * arguments.minutes / sum(TARGETS[name].share for name in names)
    print(f"{'target':<14}{'inputs':>10}{'read':>10}{'per s':>8}{'crashes':>9}{'hangs':>7}{'exceptions':>12}")
    rows = [_watch(name, unit * TARGETS[name].share, arguments) for name in names]
    total = [sum(column) for column in zip(*rows, strict=True)]
    _print_row("all", total, 60 * arguments.minutes)
    return 1 if any(total[2:]) else 0


def _print_row(name: str, row: list[int], seconds: float) -> None:
    inputs, read, crashes, hangs, exceptions = row
    print(
        f"{name:<14}{inputs:>10,}{read:>10,}{inputs / seconds:>8.0f}{crashes:>9}{hangs:>7}{exceptions:>12}", flush=True
    )


def _watch(name: str, seconds: float, arguments: argparse.Namespace) -> list[int]:
    """Runs a target, restarts it after a crash or hang, and counts inputs, read, crashes, hangs, exceptions."""
    row, started, attempt = [0] * 5, time.monotonic(), 0
    while (left := started + seconds - time.monotonic()) > 0 and (attempt == 0 or left > 5):
        attempt += 1
        with tempfile.TemporaryDirectory(prefix="vswin_fuzz_") as folder:
            end = _run_child(name, Path(folder), left, arguments, arguments.seed + 1000 * attempt)
            begun, read, exceptions, _ = _read_status(Path(folder))
            row[0], row[1], row[4] = row[0] + begun, row[1] + read, row[4] + exceptions
            if end in ("crash", "hang"):
                row[2 if end == "crash" else 3] += 1
                kept = _keep(arguments.findings / name / f"{end}_{attempt}", Path(folder, "box", "input"))
                print(f"{name}: a {end}, kept in {kept}", flush=True)
    _print_row(name, row, seconds)
    return row


def _run_child(name: str, folder: Path, seconds: float, arguments: argparse.Namespace, seed: int) -> str:
    """Starts the process of a target and watches it."""
    (folder / "status").write_bytes(_STATUS.pack(0, 0, 0, 0))
    command = [sys.executable, __file__, "--child", name, str(folder), "--seed", str(seed)]
    command += ["--findings", str(arguments.findings.absolute())]
    environment = {**os.environ, "VSWIN_FUZZ_FOLDER": str(folder), "TMPDIR": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(command, env=environment, stderr=stderr, cwd=folder)
        deadline = None
        while child.poll() is None:
            time.sleep(0.2)
            begun, _, _, began = _read_status(folder)
            if begun and deadline is None:  # the import of TensorFlow does not count
                deadline = time.monotonic() + seconds
            is_hanging = begun > 0 and time.time() - began > arguments.hang_sec
            if is_hanging or (deadline and time.monotonic() > deadline):
                child.send_signal(signal.SIGKILL)
                child.wait()
                return "hang" if is_hanging else "end"
        if child.returncode > 0:
            raise SystemExit(f"{name} cannot be run:\n" + (folder / "stderr").read_text(errors="replace")[-3000:])
    return "crash"


def _read_status(folder: Path) -> tuple[int, int, int, float]:
    return _STATUS.unpack((folder / "status").read_bytes())


def _keep(kept: Path, folder: Path) -> Path:
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return kept


def _fuzz(name: str, folder: Path, seed: int, findings: Path) -> int:
    """Runs in the process of a target: damages, reads and records until it is killed."""
    import resource

    from fuzz_edits import apply_edits, draw_edits
    from fuzz_targets import ALLOWED, TARGETS, write_files

    target, rng = TARGETS[name], random.Random(seed)
    pool = [*target.seeds(), *_read_corpus(name)]
    seen: set[str] = set()
    guard = Guard(folder)
    target_folder = folder / "box" / "input"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    begun = read = exceptions = 0
    with (folder / "status").open("r+b", buffering=0) as status:
        while True:
            chosen, other = rng.choice(pool), rng.choice(pool)
            files = dict(chosen)
            damaged = rng.choice(sorted(files))
            files[damaged] = apply_edits(files[damaged], draw_edits(rng), other.get(damaged, b""))
            shutil.rmtree(folder / "box", ignore_errors=True)
            write_files(target.finish(files), target_folder)
            begun += 1
            status.seek(0)
            status.write(_STATUS.pack(begun, read, exceptions, time.time()))
            try:
                with guard:
                    target.read(target_folder)
                read, answer = read + 1, "read"
            except ALLOWED as error:
                answer = f"{type(error).__name__}: {error}"
            except BaseException as error:
                exceptions += 1
                answer = _describe(error)
                _keep_once(findings / name, answer, target_folder, error)
            answer = re.sub(r"\d+|'[^']*'|\"[^\"]*\"|/\S+", "", answer)[:120]
            if answer not in seen and len(pool) < _POOL_SIZE:
                pool.append(files)
            seen.add(answer)


def _describe(error: BaseException) -> str:
    """Names an exception by its type and the line of our code that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "vswin" in frame.filename]
    place = f"{Path(frames[-1].filename).stem}_{frames[-1].lineno}" if frames else "elsewhere"
    return f"{type(error).__name__}_{place}"


def _keep_once(folder: Path, answer: str, files: Path, error: BaseException) -> None:
    """Keeps the first input of each kind, with its traceback."""
    kept = folder / re.sub(r"\W", "_", answer)
    if not kept.exists() and files.exists():
        _keep(kept, files)
        kept.with_suffix(".trace").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")


def _read_corpus(name: str) -> list[dict[str, bytes]]:
    """Reads the inputs that are always replayed."""
    cases = sorted(path for path in (HERE / "corpus" / name).glob("*") if path.is_dir())
    return [
        {str(path.relative_to(case)): path.read_bytes() for path in sorted(case.rglob("*")) if path.is_file()}
        for case in cases
    ]


def _replay(kept: Path) -> int:
    """Reads an input again, in this process."""
    from fuzz_targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        os.environ["VSWIN_FUZZ_FOLDER"] = folder
        shutil.copytree(kept, Path(folder, "input"))
        TARGETS[kept.absolute().parent.name].read(Path(folder, "input"))
    print("it was read")
    return 0


class ForbiddenError(BaseException):
    """Reports a forbidden action of a reader."""


class Guard:
    """Raises a ForbiddenError after a reader wrote outside `folder`, started a program or opened a connection."""

    _FORBIDDEN = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "socket.connect",
        "pty.spawn",
    )
    _CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate")

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self._is_watching = False
        self._seen: list[str] = []
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self._seen.clear()
        self._is_watching = True

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._is_watching = False
        if self._seen:
            raise ForbiddenError(", ".join(self._seen))

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self._is_watching:
            return
        if event in self._FORBIDDEN:
            self._seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            mode, flags = arguments[1], arguments[2]
            is_writing = any(c in (mode or "") for c in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if is_writing:
                self._check(event, arguments[0])
        elif event in self._CHANGES and isinstance(arguments[0], str | bytes):
            target = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
            self._check(event, target, arguments[-1] if event in ("os.remove", "os.rmdir") else -1)

    def _check(self, event: str, path: str | bytes, folder: int = -1) -> None:
        """Records a path outside the folder; it may be relative to an open folder."""
        base = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
        if not os.path.realpath(os.path.join(base, os.fsdecode(path))).startswith((self.folder, "/dev/")):
            self._seen.append(f"{event} {path!r}"[:200])


if __name__ == "__main__":
    sys.exit(main())
