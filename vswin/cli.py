"""The command line: every command of `vswin`, declared once, with its docstring as its help.

Nothing here imports TensorFlow, and a configuration is composed before anything that does, so that `--help` does not
wait and a misspelt key is answered at once. `train` and `evaluate` are train.py and evaluate.py, read by Hydra.
"""

import re
import runpy
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vswin.command import (
    SCHEMAS,
    command,
    complete_override,
    complete_source,
    complete_weights,
    completion_script,
    flag,
    group_of,
    option,
    run,
    words,
)
from vswin.config.checks import check_precisions
from vswin.config.help import print_help_if_asked
from vswin.config.load import ROOT
from vswin.errors import InputError, clean_errors

# The configuration whose losses are known; importing it from where they are used would bring TensorFlow.
SELFTEST_OVERRIDES = ("model=swin_micro", "dataset=motion", "optimizer=official", "augment=kinetics")
_TRAIN, _USE, _WEIGHTS, _MACHINE = "Train and test", "Use a model", "Weights", "Videos and this machine"
_NONE: list[str] = []


def main() -> None:
    """Runs the command named on the command line."""
    with clean_errors():
        run(app)


Settings = Annotated[list[str], words("KEY=VALUE", "as for vswin train", autocompletion=complete_override)]
Runs = Annotated[list[str], words("RUN", "folders of runs, or patterns in quotes")]
Videos = Annotated[list[str], words("VIDEO", "files, folders or patterns")]
_FILES = "a published name, a checkpoint (.pth, .safetensors, .h5), a SavedModel, or the folder of a run"
WeightsFile = Annotated[str, words("WEIGHTS", _FILES, autocompletion=complete_weights)]
_MODEL = "a run folder, a published name (see vswin models), a checkpoint or a SavedModel"
Model = Annotated[str, option("MODEL", _MODEL, autocompletion=complete_weights)]
_SOURCE = "which copy of a published name: official, innat, torchvision"
Source = Annotated[str | None, option("NAME", _SOURCE, autocompletion=complete_source)]
Clips = Annotated[int | None, option("N", "clips per video, spread over it")]
Crops = Annotated[int | None, option("N", "crops per clip: 1 or 3")]
_SET = "a key of vswin evaluate about clips, decoding or the machine; may be given several times"
Set = Annotated[list[str], option("KEY=VALUE", _SET, autocompletion=complete_override)]
Classes = Annotated[Path | None, option("FILE", "a class name per line, if the model has none")]
Json = Annotated[Path | None, option("FILE", "also write everything as JSON; - for a pipe")]
Overwrite = Annotated[bool, flag("--overwrite", "replace files that are there already")]

app = group_of(
    "Fine-tune and evaluate Video Swin Transformers for action recognition.",
    "Examples:\n"
    "vswin train                         swin_micro on motion: minutes\n"
    "vswin train model=swin_base dataset=folder dataset.root=my/videos\n"
    "vswin evaluate run=outputs/<run>\n"
    "vswin predict jump.mp4 --model outputs/<run>\n\n"
    "vswin COMMAND --help says more about a command. VSWIN_DEBUG=1 in the environment shows where an error comes from "
    "and what TensorFlow says at its start; NO_COLOR=1 turns colours off.",
    has_version=True,
)


def _run_script(name: str, settings: list[str]) -> None:
    print_help_if_asked(settings, name, f"vswin {name}")
    sys.argv = [f"vswin {name}", *settings]
    runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")


def _compose(name: str, settings: list[str]) -> Any:
    from vswin.config.compose import compose_config

    return compose_config(name, settings, SCHEMAS[name])


@command(app, _TRAIN, is_for_hydra=True)
def train(settings: Settings = _NONE) -> None:
    """Fine-tune: the same as python train.py."""
    _run_script("train", settings)


@command(app, _TRAIN, is_for_hydra=True)
def evaluate(settings: Settings = _NONE) -> None:
    """Test on several views of every video: the same as python evaluate.py."""
    _run_script("evaluate", settings)


@command(app, _TRAIN)
def splits(settings: Settings = _NONE) -> None:
    """Train and test on splits or folds of a data set, or with several seeds, and print the mean."""
    config = _compose("splits", settings)
    from vswin.tools.splits import run_splits

    run_splits(config, settings)


tune = group_of(
    "Find settings by trying: the learning rate, the largest batch that fits into memory.",
    "What training sees: vswin data show.",
)
app.add_typer(tune, name="tune", rich_help_panel=_TRAIN)


@command(tune)
def lr(
    settings: Settings = _NONE,
    min: Annotated[float, option("RATE", "learning rate of the first step")] = 1e-6,
    max: Annotated[float, option("RATE", "learning rate of the last step")] = 1.0,
    steps: Annotated[int, option("N", "training steps, at least 20")] = 200,
    output: Annotated[Path | None, option("FOLDER", "new, for curve and plot (outputs/<date>_tune_lr_...)")] = None,
) -> None:
    """Suggest a learning rate: train with one that rises from step to step until the loss diverges.

    Suggested is the lower of two rates: that at which the loss falls fastest, and a third of that at which it is lowest
    (L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015). Nothing is written into the run's
    folder. See first what training sees: vswin data show.

    Examples:
      vswin tune lr                         swin_micro on motion
      vswin tune lr model=swin_tiny dataset=folder dataset.root=my/videos batch_size=8
      vswin tune lr model=swin_base dataset=ucf101 --min 1e-7 --max 1e-1 --steps 400
    """
    config = _compose("train", settings)
    from vswin.tools.tune_rates import run_tune_rates

    run_tune_rates(config, settings, (min, max), steps, output)


@command(tune)
def batch(
    settings: Settings = _NONE,
    limit_gb: Annotated[
        float | None, option("GB", "memory for a process (CPU: nine tenths of what is free; GPU: all)")
    ] = None,
    max_batch: Annotated[int, option("N", "largest batch that is tried")] = 256,
) -> None:
    """Find the largest batch per device that fits into memory, and where it stops being faster.

    Each batch size takes steps on made-up clips in a process of its own, on one device: first the estimate that a run
    prints, then twice as many, then halving the gap. On a CPU a size fits while its process holds less than the limit;
    on a GPU, until TensorFlow is refused memory. See first what training sees: vswin data show.

    Examples:
      vswin tune batch                      swin_micro on clips as motion has them
      vswin tune batch model=swin_base clip=16x4 --limit-gb 12 --max-batch 32
    """
    config = _compose("train", settings)
    from vswin.tools.tune_batch import run_tune_batch

    run_tune_batch(config, settings, limit_gb, max_batch)


@command(app, _TRAIN)
def report(runs: Runs) -> None:
    """Make the report of a run, one page of HTML, from the files in its folder.

    Every training and every evaluation ends with it; this makes it again, or for a run that was stopped or still goes
    on. What is not in the folder is left out.

    Examples:
      vswin report 'outputs/*'
    """
    from vswin.runs.report import run_report

    run_report(runs)


@command(app, _TRAIN)
def compare(
    runs: Runs,
    all_pairs: Annotated[bool, flag("--all-pairs", "test each run against each, not the first alone")] = False,
    plot: Annotated[Path | None, option("FILE", "also draw the validation by epoch (.png, .pdf, .svg)")] = None,
    json: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Set runs side by side: what they reached, what differed, and whether that is more than chance.

    Each run against the first: the keys in which they differ, and an exact McNemar test on the videos that both were
    tested on (predictions.csv of vswin evaluate). Runs that are not finished or not evaluated are shown with what they
    have.

    Examples:
      vswin compare outputs/baseline outputs/mixup
      vswin compare outputs/baseline 'outputs/*_ucf101'   the first against all others
      vswin compare 'outputs/sweep/*' --all-pairs --plot sweep.png
    """
    from vswin.runs.compare import run_compare

    run_compare(runs, all_pairs, plot, json, overwrite)


def _views(settings: list[str], clips: int | None, crops: int | None) -> list[str]:
    short = {"clip.num_clips": clips, "clip.num_crops": crops}
    return [*settings, *(f"{key}={value}" for key, value in short.items() if value is not None)]


@command(app, _USE)
def predict(
    videos: Annotated[list[str], words("VIDEO", "files, folders, patterns, parts (a.mp4#t=10,12.5), camera, camera:N")],
    model: Model,
    clips: Clips = None,
    crops: Crops = None,
    set: Set = _NONE,
    top_k: Annotated[int, option("K", "best classes of each video")] = 5,
    classes: Classes = None,
    json: Json = None,
    csv: Annotated[Path | None, option("FILE", "also write the predictions as CSV; - for a pipe")] = None,
    save: Annotated[
        Path | None, option("FOLDER", "also write a copy of each video with its best classes at each moment")
    ] = None,
    seconds: Annotated[float | None, option("SECONDS", "how long to watch the camera (until Ctrl-C)")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the classes of videos of your own: files, folders, patterns, or a camera.

    Videos are read by the protocol of the model: a run uses the one of its evaluation, a published name the published
    one, other weights the one of Kinetics. Fewer views are quicker: --clips 1 --crops 1. A file that cannot be decoded
    is named and skipped, and the exit code is 1.

    Examples:
      vswin predict jump.mp4 --model outputs/<run>
      vswin predict my/videos 'more/**/*.avi' --model outputs/<run> --csv predictions.csv
      vswin predict my/videos --model outputs/<run> --save annotated
      vswin predict camera --model outputs/<run> --seconds 60
      vswin predict my/videos --model my_export --json - --set runtime.precision=bfloat16 | jq .predictions
    """
    from vswin.inference.predict import Outputs, run_predict

    outputs = Outputs(json, csv, save, overwrite)
    run_predict(videos, model, _views(set, clips, crops), classes, top_k, outputs, seconds)


@command(app, _USE)
def extract(
    videos: Videos,
    model: Model,
    output: Annotated[Path, option("FILE", "FILE.npz or FILE.parquet")],
    clips: Clips = None,
    crops: Crops = None,
    set: Set = _NONE,
    level: Annotated[
        Literal["video", "clip"], typer.Option(help="average over all views, or over crops alone")
    ] = "video",
    overwrite: Overwrite = False,
) -> None:
    """Write the features that a model computes of videos, as .npz or Parquet.

    Features are the output of the backbone, averaged over time, height and width: float32 (N, C), beside path,
    start_sec (where the clip begins) and label (the folder that a video lies in, below the one that was given). Parquet
    needs the extra parquet.

    Examples:
      vswin extract my/videos --model outputs/<run> --output features.npz
      vswin extract my/videos --model outputs/<run> --output features.parquet --level clip --clips 10 --crops 1
    """
    from vswin.inference.features import run_extract

    run_extract(videos, model, output, _views(set, clips, crops), level, overwrite)


@command(app, _USE)
def explain(
    videos: Videos,
    model: Model,
    output: Annotated[Path, option("FOLDER", "where films and sheets go")],
    clips: Clips = None,
    crops: Crops = None,
    set: Set = _NONE,
    label: Annotated[str | None, option("CLASS", "a name, or a number from 0 (the predicted one)", "--class")] = None,
    stage: Annotated[int | None, option("N", "whose features, from 1 on (the last)")] = None,
    attention: Annotated[str | None, option("STAGE.BLOCK", "show the attention of this block, e.g. 4.1")] = None,
    token: Annotated[
        str | None, option("T,Y,X", "whose attention: the token at this frame, row and column (the middle)")
    ] = None,
    classes: Classes = None,
    npz: Annotated[bool, flag("--npz", "write the numbers, too")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what in a video speaks for a class (Grad-CAM), or where a token looks (attention).

    Grad-CAM (Selvaraju et al. 2017) weights the features of the last stage (or of --stage) by the gradient of the
    class's logit. Each clip is divided by its own maximum, so heat compares positions within a clip, not clips. It
    shows nothing that speaks against a class. Tokens mix with their neighbours, so heat need not mark the cause.

    FOLDER gets a film (.mp4, frames beside heat) and a contact sheet (.png) of each video: its middle clip and centre
    crop, or as many as --clips and --crops say; --npz adds heat, map, frames and seconds as numbers.

    Examples:
      vswin explain jump.mp4 --model outputs/<run> --output high_jump --class "high jump" --clips 4
      vswin explain my/videos --model swin_tiny_patch244_window877_kinetics400_1k --output stage_3 --stage 3 --npz
      vswin explain jump.mp4 --model outputs/<run> --output attention --attention 4.1 --token 16,112,80
    """
    if attention is not None and (label is not None or stage is not None):
        raise InputError("--attention has no class, and names its stage itself; leave out --class and --stage")
    if attention is not None and not re.fullmatch(r"\d+\.\d+", attention):
        raise InputError(f"--attention {attention}: write STAGE.BLOCK, both from 1 on, e.g. 4.1")
    if token is not None and not re.fullmatch(r"\d+,\d+,\d+", token):
        raise InputError(f"--token {token}: write frame,row,column, e.g. 16,112,80")
    block: Any = attention and tuple(map(int, attention.split(".")))
    position: Any = token and tuple(map(int, token.split(",")))
    from vswin.explain.run import Outputs, Question, run_explain

    question = Question(label, stage, block, position)
    run_explain(videos, model, Outputs(output, npz, overwrite), question, _views(set, clips, crops), classes)


@command(app, _WEIGHTS)
def models(
    sources: Annotated[bool, flag("--sources", "show every copy and its address")] = False,
    is_json: Annotated[bool, flag("--json", "print everything as JSON")] = False,
) -> None:
    """List the published models: accuracy, cost, where their weights are and whether they are here.

    Examples:
      vswin models
      vswin models --json | jq '.[].name'
    """
    from vswin.tools.models_table import models_records, print_models

    if is_json:
        import json

        print(json.dumps(models_records(), indent=2))
    else:
        print_models(show_sources=sources)


@command(app, _WEIGHTS)
def inspect(
    weights: WeightsFile,
    source: Source = None,
    tensors: Annotated[bool, flag("--tensors", "list every tensor")] = False,
) -> None:
    """Say what a file of weights holds and what it can be used for; nothing in it is run.

    Examples:
      vswin inspect swin_tiny_k400_1k.pth
      vswin inspect swin_tiny_patch244_window877_kinetics400_1k --source innat
    """
    from vswin.weights.checkpoint import open_weights, print_checkpoint

    print_checkpoint(open_weights(weights, source), tensors)


@command(app, _WEIGHTS)
def convert(
    weights: WeightsFile,
    output: Annotated[Path, words("OUT", "FILE.safetensors, FILE.h5 (a vswin checkpoint) or a SavedModel folder")],
    source: Source = None,
) -> None:
    """Write weights in another format, under their official names.

    Examples:
      vswin convert outputs/<run> best.safetensors
      vswin convert swin_tiny_k400_1k.pth swin_tiny.h5
    """
    from vswin.runtime import start_log
    from vswin.tools.export import convert

    start_log(None)
    convert(weights, output, source)


@command(app, _WEIGHTS)
def export(
    weights: WeightsFile,
    output: Annotated[Path, words("OUT", "folder (savedmodel) or file to write")],
    format: Annotated[str | None, option("FORMAT", "savedmodel, tflite or onnx (as the ending of OUT says)")] = None,
    model: Annotated[str | None, option("SIZE", "of the network, where the weights do not say it: swin_tiny")] = None,
    frames: Annotated[int | None, option("N", "frames of a clip, where the shape is fixed (those of the run)")] = None,
    size: Annotated[int | None, option("N", "pixels of a frame's side, where it is fixed (those of the run)")] = None,
) -> None:
    """Write a model for other programs: a SavedModel as in the TF-Hub collection, TFLite or ONNX.

    Examples:
      vswin export outputs/<run> my_export
      vswin export outputs/<run> model.tflite --frames 16
      vswin export swin_tiny_k400_1k.pth model.onnx --model swin_tiny
    """
    from vswin.runtime import start_log
    from vswin.tools.export import run_export

    start_log(None)
    run_export(weights, output, format, model, frames, size)


data = group_of(
    "Check a data set, convert its labels, pack it for a cluster, or show what training makes of its clips.",
    "The learning rate and the batch size that suit what training sees: vswin tune.",
)
app.add_typer(data, name="data", rich_help_panel=_MACHINE)


@command(data)
def check(settings: Settings = _NONE) -> None:
    """Open or decode every file: missing, broken, short, odd-sized and duplicate ones, class balance, counts."""
    config = _compose("data_check", settings)
    from vswin.data.check import run_check

    run_check(config)


@command(data)
def data_convert(
    source: Annotated[Path, words("IN", "an export of an annotation tool, or a list")],
    output: Annotated[Path, words("OUT", "file to write: .csv, .json, .xml (CVAT) or .eaf (ELAN)")],
    to: Annotated[str | None, option("FORMAT", "csv, label-studio, activitynet, via, osl, cvat or elan")] = None,
    fps: Annotated[float | None, option("N", "frames per second, to turn seconds into frames or back")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert labels between annotation tools and lists of vswin.

    What OUT cannot hold is an error if the samples would change, and is counted otherwise.

    Examples:
      vswin data convert export.json labels.csv
      vswin data convert labels.csv tasks.json --to label-studio --fps 25
    """
    from vswin.tools.convert_labels import run_convert_labels

    run_convert_labels(source, output, to, fps, overwrite)


@command(data)
def prepare(settings: Settings = _NONE) -> None:
    """Pack the encoded files into a few large ones, for clusters and network drives."""
    config = _compose("data_prepare", settings)
    from vswin.data.prepare import run_prepare

    run_prepare(config)


@command(data)
def show(settings: Settings = _NONE) -> None:
    """Draw augmented training clips as a picture or a short film."""
    config = _compose("data_show", settings)
    from vswin.tools.data_show import run_show

    run_show(config)


@command(app, _MACHINE)
def selftest(
    settings: Settings = _NONE,
    record: Annotated[bool, flag("--record", "store the losses as the known ones, after a change of vswin")] = False,
) -> None:
    """Train for fifty steps and compare their losses with known ones: does this installation work?

    Examples:
      vswin selftest
      vswin selftest runtime.precision=bfloat16
    """
    other = [word for word in settings if not word.startswith("runtime.")]
    if other:
        raise InputError(f"{other[0]}: the self-test has known losses for one configuration; only runtime.* may be set")
    config = _compose("train", [*SELFTEST_OVERRIDES, *settings])
    from vswin.tools.selftest import run_selftest

    run_selftest(config, record)


bench = group_of(
    "Measure this machine: the model, a training step, the input pipeline.",
    "Contenders take turns, medians are compared.",
)
app.add_typer(bench, name="bench", rich_help_panel=_MACHINE)
Size = Annotated[str, option("SIZE", "size of the network")]
Frames = Annotated[int, option("N", "frames of a clip")]
Pixels = Annotated[int, option("N", "pixels of a frame's side", "--size")]
Batch = Annotated[int, option("N", "clips at once", "--batch")]
Precision = Annotated[list[str], option("NAME", "float32, bfloat16, float16; given several times, they are compared")]
Rounds = Annotated[int, option("N", "runs of each contender, in turns")]
Measured = Annotated[Path | None, option("FILE", "also write everything that was measured, as JSON", "--json")]
Earlier = Annotated[Path | None, option("FILE", "compare with what --json wrote earlier", "--compare")]
_FLOAT32 = ["float32"]


@command(bench)
def bench_model(
    model: Size = "swin_tiny",
    frames: Frames = 32,
    pixels: Pixels = 224,
    clips: Batch = 1,
    precision: Precision = _FLOAT32,
    rounds: Rounds = 7,
    measured: Measured = None,
    earlier: Earlier = None,
) -> None:
    """Time the forward pass: seconds, clips per second, fraction of the matmul bound.

    Examples:
      vswin bench model                     swin_tiny on one clip of 32 x 224 x 224, float32
      vswin bench model --precision float32 --precision bfloat16
      vswin bench model --compare benchmarks/results/.../model.json
    """
    check_precisions(precision)
    from vswin.tools.bench_model import Workload, bench_model
    from vswin.tools.bench_result import show_result

    show_result(bench_model(Workload(model, frames, pixels, clips), precision, rounds), measured, earlier)


@command(bench)
def bench_step(
    model: Size = "swin_tiny",
    frames: Frames = 32,
    pixels: Pixels = 224,
    clips: Batch = 1,
    precision: Precision = _FLOAT32,
    remat: Annotated[bool, flag("--remat", "also with runtime.remat=true")] = False,
    micro_batches: Annotated[int, option("N", "also with runtime.micro_batches=N")] = 1,
    jit: Annotated[bool, flag("--jit", "also with runtime.jit=true, which takes minutes first")] = False,
    memory: Annotated[bool, flag("--memory", "also the peak memory, each in a process of its own")] = False,
    rounds: Rounds = 5,
    measured: Measured = None,
    earlier: Earlier = None,
) -> None:
    """Time a training step as vswin train takes it: seconds, fraction of the matmul bound, memory.

    Examples:
      vswin bench step                      AdamW by the recipe, one clip of 32 x 224 x 224, float32
      vswin bench step --remat --memory
    """
    check_precisions(precision)
    from vswin.tools.bench_model import Workload
    from vswin.tools.bench_result import show_result
    from vswin.tools.bench_step import bench_step, list_variants, measure_memory

    workload = Workload(model, frames, pixels, clips)
    variants = list_variants(precision, remat, micro_batches, jit)
    result = bench_step(workload, variants, rounds)
    for row, variant in zip(result.rows, variants, strict=True):
        if memory:
            row.figures = {**row.figures, **measure_memory(workload, variant)}
    show_result(result, measured, earlier)


@command(bench)
def bench_input(
    settings: Settings = _NONE,
    videos: Annotated[
        list[str], option("FILE", "a video to read; may be given several times (three are made)")
    ] = _NONE,
    threads: Annotated[list[int], option("N", "threads that decode; may be given several times")] = [1, 2],  # noqa: B006
    isolate: Annotated[bool, flag("--isolate", "also with dataset.isolate=true")] = False,
    rounds: Rounds = 5,
    measured: Measured = None,
    earlier: Earlier = None,
) -> None:
    """Time the input pipeline of training: clips per second by number of threads.

    Examples:
      vswin bench input                     the official Kinetics recipe on videos made for the purpose
      vswin bench input --videos a.mp4 --videos b.avi --threads 1 --threads 4
      vswin bench input clip=16x4 augment=strong --isolate
    """
    from vswin.tools.bench_input import bench_input, videos_at
    from vswin.tools.bench_result import show_result

    with videos_at([Path(video) for video in videos] or None) as files:
        result = bench_input(files, settings, threads, isolate, rounds)
    show_result(result, measured, earlier)


@command(app, _MACHINE)
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], words("SHELL", "bash, zsh or fish")]) -> None:
    """Print the script that teaches a shell to complete commands, options, keys and names.

    Run one of the lines below once, and open a new terminal. Then TAB completes commands, options, files, published
    names, run folders, and settings: vswin train model=swin_<TAB>, optimizer.<TAB>.

    Examples:
      vswin completion bash >> ~/.bashrc
      vswin completion zsh >> ~/.zshrc      below the line with compinit
      vswin completion fish > ~/.config/fish/completions/vswin.fish
    """
    print(completion_script(shell))


if __name__ == "__main__":
    main()
