"""What files by others must never do: run code, write elsewhere, or read secrets from the environment."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import tf_keras as keras

import vswin
from vswin.config.load import differing_keys, load_saved, save_config
from vswin.data.packed import check_imports
from vswin.errors import InputError
from vswin.evaluation.report import format_results
from vswin.models.zoo import ModelSize
from vswin.weights.checkpoint import open_checkpoint
from vswin.weights.files import save_checkpoint
from vswin.weights.names import official_tensors

ROOT = Path(__file__).parents[1]
MODULES = [*sorted((ROOT / "vswin").rglob("*.py")), ROOT / "train.py", ROOT / "evaluate.py"]

# Modules and calls that run what a file says, and arguments that allow it.
MODULES_THAT_RUN = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "torch",
    "jsonpickle",
}
CALLS_THAT_RUN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("np.load", "numpy.load", "np.loadtxt", "np.fromregex"),
    *("hydra.utils.instantiate", "instantiate", "hydra.utils.call", "hydra.utils.get_method", "get_class"),
    *("keras.models.load_model", "keras.saving.load_model", "tf.keras.models.load_model", "load_model"),
    *("keras.models.model_from_json", "keras.models.model_from_config", "keras.layers.deserialize"),
    *("tf.saved_model.load", "tf.saved_model.load_v2", "hub.load", "hub.KerasLayer", "tf.compat.v1.saved_model.load"),
}
# Python's own unpickler, with which `torch_file` admits no class and no function but its own.
MAY_PICKLE = {"torch_file.py"}
METHODS_THAT_LEAD_ELSEWHERE = {"extractall", "extract", "unpack_archive"}
ARGUMENTS_THAT_ALLOW = {
    ("allow_pickle", True),
    ("shell", True),
    ("verify", False),
    ("safe_mode", False),
}


def find_dangers(source: str) -> list[str]:
    """Lists what in a module could run what a file says, write where an archive says, or trust any server."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            found += [name for name in names if name.partition(".")[0] in MODULES_THAT_RUN]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS_THAT_RUN or name.rpartition(".")[2] in METHODS_THAT_LEAD_ELSEWHERE:
                found.append(name)
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in ARGUMENTS_THAT_ALLOW and name != "wandb.login":
                    found.append(f"{keyword.arg}={value}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_a_file_says(path):
    allowed = ["pickle"] if path.name in MAY_PICKLE else []
    # It extracts only plain files and folders, below a folder of ours: tests/weights/test_archive.py.
    allowed += ["archive.extract"] if path.match("weights/files.py") else []
    assert find_dangers(path.read_text()) == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "import joblib.numpy_pickle",
        "eval(text)",
        "yaml.load(text, yaml.Loader)",
        "np.load(path)",
        "read(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "requests.get(url, verify=False)",
        "tarfile.open(path).extractall(folder)",
        "shutil.unpack_archive(path)",
        "hydra.utils.instantiate(config)",
        "keras.models.load_model(path)",
        "tf.saved_model.load(path)",
    ],
)
def test_the_search_finds_each_of_them(source):
    assert len(find_dangers(source)) == 1


def test_every_exception_from_ruffs_security_rules_has_a_reason():
    for path in MODULES:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if "noqa: S" in line:
                codes = line.partition("noqa: ")[2].split(",")
                before = "\n".join(lines[max(0, number - 2) : number])
                assert all(f"# {code.strip()}: " in before for code in codes), f"{path}:{number + 1}"


def test_a_keras_model_with_a_lambda_layer_is_never_built(tmp_path):
    mark = tmp_path / "mark"
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,)), keras.layers.Lambda(lambda x: x + 1)])
    with pytest.warns(UserWarning, match="legacy"):
        model.save(tmp_path / "whole.h5")
    for name in ("saved", "zipped.keras"):
        model.save(tmp_path / name)
    with h5py.File(tmp_path / "whole.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["function"] = f"lambda x: open({str(mark)!r}, 'w')"
        file.attrs["model_config"] = json.dumps(config)
    for name in ("whole.h5", "saved", "zipped.keras"):
        with pytest.raises(InputError):
            open_checkpoint(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "size",
    [
        {"_target_": "os.system", "command": "touch mark"},
        {"embed_dim": {"_target_": "os.system"}, "depths": [1], "num_heads": [1]},
        "${oc.env:HOME}",
    ],
)
def test_a_checkpoint_that_names_a_target_is_refused(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    model = vswin.build_model(ModelSize(4, (1, 1), (1, 2), window_size=(2, 2, 2)), num_classes=2)
    save_checkpoint(tmp_path / "a.safetensors", official_tensors(model), {"size": size})
    with pytest.raises(InputError, match="what it says of its model is damaged"):
        open_checkpoint(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.fixture
def run_with(tmp_path, compose_train):
    """Makes the folder of a run with one line of its configuration replaced."""

    def make(old: str, new: str) -> Path:
        save_config(compose_train(), tmp_path / "config.yaml")
        text = (tmp_path / "config.yaml").read_text()
        assert old in text
        (tmp_path / "config.yaml").write_text(text.replace(old, new, 1))
        return tmp_path

    return make


@pytest.mark.parametrize(
    "secret", ["${oc.env:VSWIN_SECRET}", '"\\x24{oc.env:VSWIN_SECRET}"', "a${oc.env:VSWIN_SECRET}"]
)
def test_the_configuration_of_a_run_cannot_read_the_environment(
    run_with, compose_train, compose_evaluate, monkeypatch, secret
):
    monkeypatch.setenv("VSWIN_SECRET", "correct horse")
    run = run_with("init_from: null", f"init_from: {secret}")
    for read in (
        load_saved,
        lambda run: differing_keys(compose_train(), run),
        lambda run: compose_evaluate(f"run={run}"),
    ):
        with pytest.raises(InputError, match=r"config\.yaml:\d+: a reference, which no run writes") as caught:
            read(run)
        assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("model:\n  _target_: os.system", r"Key '_target_' not in 'ModelConfig'"),
        ("model: !!python/object/apply:os.system [touch mark]\nold:", "could not determine a constructor"),
        ("a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a]\nmodel:", "a reference, which no run writes"),
        ("a: " + "[" * 5_000 + "\nmodel:", r"config\.yaml:\d+: nested deeper"),
        ("a: " + "x" * 100_001 + "\nmodel:", "far more than a run writes"),
        ("\x00model:", "cannot be read"),
        ("- model:", "cannot be read|is no configuration"),
    ],
    ids=["target", "python", "bomb", "deep", "huge", "nul", "list"],
)
def test_the_configuration_of_a_run_is_data(run_with, compose_evaluate, monkeypatch, tmp_path, new, message):
    monkeypatch.chdir(tmp_path)
    run = run_with("model:", new)
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        compose_evaluate(f"run={run}")
    assert time.monotonic() - started < 10
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_without_its_parts_is_an_error_that_names_it(tmp_path, compose_evaluate):
    for text in (
        "seed: 1\n",
        "model: 3\ndataset: {}\nclip: {}\n",
        "clip: null\n",
        "clip: {crop: x}\nmodel: {}\ndataset: {}\n",
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"config\.yaml|configuration"):
            compose_evaluate(f"run={tmp_path}")


@pytest.mark.parametrize(
    "described",
    [
        {"pythonClassName": "antigravity.Feature"},
        {"featuresDict": {"features": {"video": [{"python_class_name": "os.path"}]}}},
        {"type": "my.Feature", "content": {}},
        {"type": "tensorflow_datasets.a.B", "content": '{"pythonClassName": "this.that"}'},
        {"type": "tensorflow_datasets.a.B", "proto_cls": "some.module.Proto", "content": {}},
    ],
)
def test_prepared_data_cannot_have_modules_imported(described):
    with pytest.raises(InputError, match="wants the Python module of"):
        check_imports(described)


def test_features_of_tfds_itself_are_let_through():
    check_imports({"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "a": [1, None]})


def test_names_in_the_table_of_results_stay_names():
    name = "a|b`c`<script>alert(1)</script>\n# heading [link](x) ![i](y) *b* \\| ~~z~~"
    row = {
        "date": "2026-11-25T00:00:00",
        "weights": {"init_from": name},
        "dataset": {"name": name, "split": None},
        "sampling": "dense",
        "spacing": "centred",
        "average": "prob",
        "note": name,
        "no_official": name,
        **dict.fromkeys(("num_frames", "frame_stride", "num_clips", "num_crops", "crop", "num_videos"), 1),
        **dict.fromkeys(("num_bad_videos", "clip_top1"), 0),
        **{key: {"measured": 0.5, "interval": [0, 1]} for key in ("top1", "top5")},
    }
    shown = r"a\|b\`c\`&lt;script&gt;alert(1)&lt;/script&gt; # heading \[link\](x) !\[i\](y) \*b\* \\\| \~\~z\~\~"
    text = format_results([row])
    assert text.count(shown) == 2 + 2 + 3
    assert "<script>" not in text
    assert not any(line.startswith("# heading") for line in text.splitlines())


@pytest.mark.slow
def test_secrets_stand_in_no_file_of_a_run(tmp_path, small_videos):
    """Searches everything that a run with wandb, offline, and its evaluation print and write."""
    secrets = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "AWS_SECRET_ACCESS_KEY": "an/AWS+secret/Which+Nobody/Should/See",
        "HF_TOKEN": "hf_neverToBeSeenAnywhere",
        "VSWIN_WEIGHTS_DIR": "https://me:mirrorpassword@localhost:9",
    }
    environment = {**os.environ, **secrets, "WANDB_MODE": "offline"}
    tiny = ("model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "model.window_size=[2,2,3]")
    clip = ("clip.num_frames=4", "clip.frame_stride=1", "clip.resize=32", "clip.crop=32")
    data = (
        "dataset=folder",
        f"dataset.root={small_videos}",
        "init_from=null",
        "batch_size=2",
        "epochs=1",
        "logger=wandb",
    )
    printed = b""
    for command in (
        ["train.py", *tiny, *clip, *data, "output_dir=run"],
        ["evaluate.py", "run=run", "results_dir=results"],
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / command[0]), *command[1:]],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode()
        printed += done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file() and small_videos not in path.parents]
    names = {path.name for path in files}
    assert names >= {"config.yaml", "train.log", "metrics.json", "results.md", "results.json", "history.csv"}
    assert any(name.endswith(".wandb") for name in names)
    for secret in (*list(secrets.values())[:3], "mirrorpassword"):
        assert secret.encode() not in printed
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
