"""Create an environment for each peer, `.venv-peers/<peer>`, from its requirements; torch takes 5 GB.

python benchmarks/peers/install.py
python benchmarks/peers/install.py keras_cv decord
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".venv-peers"


def find_python(peer: str) -> Path:
    """Gives the path of a peer's Python, whether or not the peer is installed."""
    return ENVIRONMENTS / peer / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def main() -> None:
    """Installs the named peers, or all peers."""
    peers = sorted(path.stem for path in (HERE / "requirements").glob("*.txt"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(peers)}; without, all")
    for peer in parser.parse_args().peers or peers:
        requirements = HERE / "requirements" / f"{peer}.txt"
        if not requirements.is_file():
            parser.error(f"no peer is called {peer!r}; there are {', '.join(peers)}")
        print(f"{peer}: {ENVIRONMENTS / peer}", flush=True)
        venv.create(ENVIRONMENTS / peer, with_pip=True, clear=True)
        command = [str(find_python(peer)), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
