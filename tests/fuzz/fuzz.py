"""Damages files and has them read, for as long as one likes: `make fuzz ARGS="--minutes 30"`.

Each target runs in a process of its own: a crash or a hang ends that process alone, is counted, and the input is kept
with the others that went wrong. An input whose answer was not seen before is damaged further. `--replay FOLDER` reads
one kept input again.
"""

import argparse
import faulthandler
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
_POOL_SIZE = 300
_MEMORY_BYTES = 16 * 2**30
_COUNTS = ("inputs", "read", "crashes", "hangs", "exceptions")


def main() -> int:
    """Runs the command; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all targets together (5)")
    parser.add_argument("--targets", nargs="*", default=[], help="those to run (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (0)")
    parser.add_argument("--hang-sec", type=float, default=20.0, help="after which an input counts as a hang (20)")
    parser.add_argument("--findings", type=Path, default=Path("outputs/fuzz"), help="where inputs are kept")
    parser.add_argument("--replay", type=Path, help="a kept input, <findings>/<target>/<what>: read it alone")
    parser.add_argument("--child", nargs=2, metavar=("TARGET", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return _fuzz(arguments.child[0], float(arguments.child[1]), arguments)
    from fuzz_targets import TARGETS

    if arguments.replay:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VSWIN_FUZZ_FOLDER"] = folder
            shutil.copytree(arguments.replay, Path(folder, "input"))
            TARGETS[arguments.replay.absolute().parent.name].read(Path(folder, "input"))
        print("it was read")
        return 0
    names = arguments.targets or list(TARGETS)
    unit = 60 * arguments.minutes / sum(TARGETS[name].share for name in names)
    print(f"{'target':<14}" + "".join(f"{count:>12}" for count in _COUNTS))
    total = dict.fromkeys(_COUNTS, 0)
    for name in names:
        row = _run_target(name, unit * TARGETS[name].share, arguments)
        total = {key: total[key] + row[key] for key in _COUNTS}
        print(f"{name:<14}" + "".join(f"{row[key]:>12,}" for key in _COUNTS), flush=True)
    print(f"{'all':<14}" + "".join(f"{total[key]:>12,}" for key in _COUNTS))
    return 1 if any(total[key] for key in _COUNTS[2:]) else 0


def _run_target(name: str, seconds: float, arguments: argparse.Namespace) -> dict[str, int]:
    """Runs a target in a process, restarts it after a crash or hang, and counts."""
    row, started, attempt = dict.fromkeys(_COUNTS, 0), time.monotonic(), 0
    while (left := started + seconds - time.monotonic()) > 0 and (attempt == 0 or left > 5):
        attempt += 1
        with tempfile.TemporaryDirectory(prefix="vswin_fuzz_") as folder:
            command = [sys.executable, __file__, "--child", name, str(left)]
            command += ["--seed", str(arguments.seed + 1000 * attempt), "--hang-sec", str(arguments.hang_sec)]
            command += ["--findings", str(arguments.findings.absolute())]
            environment = {**os.environ, "VSWIN_FUZZ_FOLDER": folder, "TMPDIR": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
            with Path(folder, "stderr").open("wb") as stderr:
                code = subprocess.run(command, env=environment, stderr=stderr, cwd=folder, check=False).returncode
            if not Path(folder, "counts").exists():
                raise SystemExit(
                    f"{name} cannot be run:\n" + Path(folder, "stderr").read_text(errors="replace")[-3000:]
                )
            for key, count in json.loads(Path(folder, "counts").read_text()).items():
                row[key] += count
            if code:
                end = "crashes" if code < 0 else "hangs"
                row[end] += 1
                kept = _keep(arguments.findings / name / f"{end}_{attempt}", Path(folder, "box", "input"))
                shutil.copy(Path(folder, "stderr"), kept.with_suffix(".trace"))
                print(f"{name}: {end}, kept in {kept}", flush=True)
    return row


def _fuzz(name: str, seconds: float, arguments: argparse.Namespace) -> int:
    """Runs in the process of a target: damages and reads inputs until the time is over."""
    from fuzz_edits import apply_edits, draw_edits
    from fuzz_targets import ALLOWED, TARGETS, write_files

    target, rng = TARGETS[name], random.Random(arguments.seed)
    cases = sorted(path for path in (HERE / "corpus" / name).glob("*") if path.is_dir())
    pool = [*target.seeds(), *map(read_files, cases)]
    seen: set[str] = set()
    folder = Path(os.environ["VSWIN_FUZZ_FOLDER"])
    guard, inputs = Guard(folder), folder / "box" / "input"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    counts = {"inputs": 0, "read": 0, "exceptions": 0}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        chosen, other = rng.choice(pool), rng.choice(pool)
        files = dict(chosen)
        damaged = rng.choice(sorted(files))
        files[damaged] = apply_edits(files[damaged], draw_edits(rng), other.get(damaged, b""))
        shutil.rmtree(folder / "box", ignore_errors=True)
        write_files(target.finish(files), inputs)
        counts["inputs"] += 1
        (folder / "counts").write_text(json.dumps(counts))
        faulthandler.dump_traceback_later(arguments.hang_sec, exit=True)
        try:
            with guard:
                target.read(inputs)
            counts["read"] += 1
            answer = "read"
        except ALLOWED as error:
            answer = f"{type(error).__name__}: {error}"
        except BaseException as error:
            counts["exceptions"] += 1
            # The type, and the line of our code that raised it; the first input of each kind is kept.
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "vswin" in frame.filename]
            place = f"{Path(frames[-1].filename).stem}_{frames[-1].lineno}" if frames else "elsewhere"
            answer = f"{type(error).__name__}_{place}"
            kept = arguments.findings / name / answer
            if not kept.exists() and inputs.exists():
                trace = "".join(traceback.format_exception(error))
                _keep(kept, inputs).with_suffix(".trace").write_text(trace, errors="backslashreplace")
        faulthandler.cancel_dump_traceback_later()
        answer = re.sub(r"\d+|'[^']*'|\"[^\"]*\"|/\S+", "", answer)[:120]
        if answer not in seen and len(pool) < _POOL_SIZE:
            pool.append(files)
        seen.add(answer)
    (folder / "counts").write_text(json.dumps(counts))
    return 0


def read_files(folder: Path) -> dict[str, bytes]:
    """Reads an input that was kept: path -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _keep(kept: Path, folder: Path) -> Path:
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return kept


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
