"""The notebook in docs/notebooks is valid, stored clean, and runs to the end with the right result."""

import copy
import importlib.util
import json
import re

import nbformat
import pytest

from vswin.config.load import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOK = FOLDER / "fine_tune.ipynb"


@pytest.fixture(scope="module")
def run():
    """Imports the script that runs and stores the notebook."""
    spec = importlib.util.spec_from_file_location("run_notebook", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs_of(notebook) if output.output_type == "stream")


def test_stored_notebook_is_valid_and_small(notebook):
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 300_000
    assert notebook.cells[0].source.startswith("# ")
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # stored after one run from the beginning


def test_stored_outputs_hold_no_error_and_nothing_of_a_machine(notebook):
    outputs = outputs_of(notebook)
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    texts = [json.dumps({**output, "data": {**output.get("data", {}), "image/png": ""}}) for output in outputs]
    # An absolute path, of this system or of Windows; "videos/s" and "64 / 64" are none.
    assert [text for text in texts if re.search(r"(?<![\w.<)])/(?:\w[\w.-]*/)+\w|[A-Z]:\\\\\w|~/", text)] == []
    assert "\x1b[2K" not in printed(notebook)  # no moving progress bar
    assert not re.search(r"oneDNN|cuInit|absl", printed(notebook))
    assert float(re.search(r"top-1 (\S+), chance 0.125", printed(notebook))[1]) > 0.8
    assert float(re.search(r"same class as the most similar video: (\S+)", printed(notebook))[1]) > 0.4
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_tidy_joins_pieces_and_takes_messages_of_the_start_only(run):
    def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
        return nbformat.v4.new_output("stream", name=name, text=text)

    start = "I0000 00:00:1795937338.884602   32471 port.cc:153] oneDNN custom operations are on.\n"
    cell = nbformat.v4.new_code_cell("x", outputs=[stream("a\r\n"), stream(start + "b\n"), stream(start, "stderr")])
    other = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_markdown_cell("text")])
    run.tidy(other)
    assert other.cells[0].outputs == [stream("a\nb\n")]


@pytest.mark.slow
def test_notebook_runs(run, notebook, tmp_path):
    """With fewer videos and epochs than what is stored, so that it need not learn."""
    again = copy.deepcopy(notebook)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = cell.source.replace(
                "train_per_class=160, val_per_class=20", "train_per_class=8, val_per_class=5"
            )
            cell.source = cell.source.replace("epochs=3", "epochs=2")
    run.execute(again, tmp_path)

    work = tmp_path / "work"
    metrics = json.loads((work / "runs/motion/metrics.json").read_text())
    assert f"top-1 {metrics['top1']:.3f}, chance 0.125" in printed(again)
    assert len(list((work / "videos").rglob("*.avi"))) == 8 * (8 + 5)
    for name in (
        "report.html",
        "curves.png",
        "confusion_matrix.png",
        "predictions.csv",
        "checkpoints/best.safetensors",
    ):
        assert (work / "runs/motion" / name).stat().st_size > 0, name
    assert (work / "exported/saved_model.pb").is_file()
    assert "nothing is wrong" in printed(again)
    difference = re.search(r"largest difference to the model: (\S+)", printed(again))
    assert float(difference[1]) < 1e-5
    assert sum("image/png" in output.get("data", {}) for output in outputs_of(again)) == 4
