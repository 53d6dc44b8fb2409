"""Imports only go one way, and a few libraries are used in one place each."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [*sorted((ROOT / "vswin").rglob("*.py")), ROOT / "train.py", ROOT / "evaluate.py"]

# A module may import modules of a lower layer, of its own package, and of its own layer in the layers that may.
LAYERS = [
    {"console", "errors"},
    {"atomic", "cluster"},
    {"config", "zoo", "published", "runtime"},
    {"models", "weights", "data"},
    {"runs"},
    {"evaluation"},
    {"training", "inference", "explain"},
    {"tools"},
    {"command"},
    {"cli", "train.py", "evaluate.py"},
]
MIXED = [*LAYERS[:4], LAYERS[6]]
# Tables that the configuration is checked against, though they stand beside what they describe.
TABLES = {"models.zoo": "zoo", "weights.published": "published"}
ONLY_IN = {
    "typer": {"vswin/cli.py", "vswin/command.py"},
    "hydra": {"train.py", "evaluate.py", "vswin/config/compose.py"},
    "omegaconf": {"vswin/config/load.py"},
    "yaml": {"vswin/config/load.py"},
    "av": {
        "vswin/data/inspection.py",
        "vswin/data/decoders.py",
        "vswin/data/pyav_encoder.py",
        "vswin/data/seeking.py",
    },
    "h5py": {"vswin/weights/files.py"},
    "safetensors": {"vswin/weights/files.py"},
    "array_record": {"vswin/data/prepare.py"},
    "tensorflow_datasets": {"vswin/data/packed.py"},
    "PIL": {
        "vswin/data/augment.py",
        "vswin/explain/run.py",
        "vswin/inference/annotate.py",
        "vswin/runs/report.py",
        "vswin/data/contact_sheet.py",
    },
    "jinja2": {"vswin/runs/page.py"},
    "markupsafe": {"vswin/runs/page.py"},
    "matplotlib": {
        "vswin/inference/annotate.py",
        "vswin/runs/plots.py",
        "vswin/tools/tune_rates.py",
    },
    "pyarrow": {"vswin/inference/features.py"},
    "filelock": {"vswin/atomic.py"},
    "platformdirs": {"vswin/weights/download.py"},
    "requests": {"vswin/weights/download.py"},
    "tensorflow_addons": {"vswin/training/addons_optimizer.py"},
    "scipy": {"vswin/runs/pairs.py"},
    "sklearn": {"vswin/runs/metrics.py", "vswin/runs/multi_label.py", "vswin/data/samples.py"},
    "wandb": {"vswin/evaluation/loggers.py", "vswin/runs/wandb_run.py", "vswin/training/loggers.py"},
}
WITHOUT_TENSORFLOW = [
    "vswin/cli.py",
    "vswin/runs/compare.py",
    "vswin/config/load.py",
    "vswin/command.py",
    "vswin/config/help.py",
    "vswin/models/zoo.py",
    "vswin/weights/published.py",
    "vswin/tools/convert_labels.py",
    "vswin/tools/models_table.py",
    "vswin/inference/inputs.py",
    "vswin/runs/report.py",
    "vswin/data/catalog.py",
    "vswin/data/check.py",
    "vswin/data/isolated.py",
    "vswin/data/packed.py",
    "vswin/data/views.py",
    "vswin/weights/torch_file.py",
    "vswin/weights/download.py",
    "vswin/weights/dialects.py",
    "vswin/weights/files.py",
]


@functools.cache
def imports(path: Path, is_at_start: bool = False) -> set[str]:
    """Lists the modules that a file imports, or imports at its start, without imports for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if is_for_types or (is_at_start and isinstance(node, ast.FunctionDef)):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def layer_name(module: str) -> str:
    inside = module.removeprefix("vswin.")
    return TABLES.get(inside, inside.split(".")[0])


def layer_of(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def name_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.name if len(relative.parts) == 1 else layer_name(".".join(relative.with_suffix("").parts))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    own = name_of(path)
    if path == ROOT / "vswin" / "__init__.py":
        return
    for module in imports(path):
        if module.startswith("vswin."):
            other = layer_name(module)
            is_mixed = any(own in layer and other in layer for layer in MIXED)
            assert other == own or is_mixed or layer_of(other) < layer_of(own), f"{own} imports {module}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_have_one_place(library):
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users <= ONLY_IN[library]


def test_video_capture_has_one_place():
    users = [path.name for path in MODULES if "VideoCapture(" in path.read_text()]
    assert users == ["decoders.py"]


@pytest.mark.parametrize("start", WITHOUT_TENSORFLOW)
def test_some_modules_do_not_need_tensorflow(start):
    seen, waiting = set(), [ROOT / start]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path, is_at_start=True):
            assert module.split(".")[0] not in ("tensorflow", "tf_keras"), f"{start} reaches {module} in {path}"
            candidate = ROOT / (module.replace(".", "/") + ".py")
            if module.startswith("vswin.") and candidate.exists():
                waiting.append(candidate)


def test_no_names_that_say_nothing():
    assert [path for path in MODULES if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_no_test_is_hidden_by_a_misspelt_name():
    for path in (ROOT / "tests").rglob("*.py"):
        functions = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        assert [
            name for name in functions if name.startswith("te") and "_" in name and not name.startswith("test_")
        ] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_duration_is_taken_from_a_clock_that_may_jump(path):
    """Users and time servers can set `time.time`, but not `time.monotonic` or `time.perf_counter`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    assert not [node for node in calls if ast.unparse(node) in ("time.time", "time.time_ns", "datetime.utcnow")]
