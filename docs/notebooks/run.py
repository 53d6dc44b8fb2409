"""Run the notebook of this folder as its test does, and store it with what it printed and drew.

    python docs/notebooks/run.py

It runs in a folder that is removed afterwards, with this very Python: no kernel is installed for the user. What is
stored names no folder of the machine and no time, and is without TensorFlow's messages at its start.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("fine_tune.ipynb")
ROOT = NOTEBOOK.parents[2]
KERNEL = "vswin-notebook"
# Of absl, which TensorFlow writes with: a letter, month and day or seconds, the process, the place in the code.
_START_UP = re.compile(r"^(?:[IWE]\d{4} .*\]|WARNING: All log messages before absl::InitializeLog).*\n", re.MULTILINE)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Runs all cells and leaves their outputs in the notebook.

    Args:
        notebook: is changed.
        folder: empty; what the cells write is in its `work` afterwards.

    Raises:
        CellExecutionError: if a cell fails.
    """
    kernel = folder / "jupyter" / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    (folder / "work").mkdir()
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}))
    with _environment(folder):
        resources = {"metadata": {"path": str(folder / "work")}}
        client = NotebookClient(notebook, kernel_name=KERNEL, timeout=300, record_timing=False, resources=resources)
        client.execute()


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Lets the kernel find `vswin`, the command and this package, and nothing of the user's Jupyter and IPython."""
    before = dict(os.environ)
    os.environ.update(
        PATH=os.pathsep.join([str(Path(sys.executable).parent), before.get("PATH", os.defpath)]),
        PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [before.get("PYTHONPATH")])]),
        COLUMNS="100",
        **{f"JUPYTER_{name}": str(folder / "jupyter") for name in ("PATH", "DATA_DIR", "CONFIG_DIR", "RUNTIME_DIR")},
        IPYTHONDIR=str(folder / "ipython"),
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Joins what a cell printed in pieces, without TensorFlow's messages and without the name of the kernel.

    Args:
        notebook: is changed.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        joined: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            if output.output_type != "stream":
                joined.append(output)
            elif joined and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        for output in joined:
            if output.output_type == "stream":
                output.text = _START_UP.sub("", output.text.replace("\r\n", "\n"))
        cell.outputs = [output for output in joined if output.output_type != "stream" or output.text.strip()]


def main() -> None:
    """Runs the notebook and stores it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    tidy(notebook)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
