"""The schema of a configuration: one dataclass per config group, and one per command.

Default values are in `configs/*.yaml`, so the fields here have none, except in `ModelConfig`: there `None` means the
value of the size in `vswin.models.zoo.SIZES`. A field states its range, its choices, or that it is a path.
`vswin.config.load` fills these dataclasses and checks them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PRECISIONS = ("float32", "bfloat16", "float16")
SAMPLINGS = ("dense", "segments")
SPACINGS = ("centred", "end_to_end")
AVERAGES = ("prob", "score")
CLASS_WEIGHTS = ("none", "balanced", "effective")
SINGLE_LABEL, MULTI_LABEL = "single_label", "multi_label"


class Monitor(NamedTuple):
    """A figure of validation that may choose the best epoch: its name, which of two values is better, and its tasks."""

    name: str
    better: Callable[..., Any] = max
    tasks: tuple[str, ...] = (SINGLE_LABEL, MULTI_LABEL)

    def format(self, value: float) -> str:
        """Formats a value: a loss as it is, everything else in percent."""
        return f"{value:.3f}" if self.better is min else f"{100 * value:.1f} %"


MONITORS = {
    "val_top1": Monitor("top-1", tasks=(SINGLE_LABEL,)),
    "val_map": Monitor("mAP", tasks=(MULTI_LABEL,)),
    "val_f1_macro": Monitor("macro F1"),
    "val_balanced_accuracy": Monitor("balanced accuracy", tasks=(SINGLE_LABEL,)),
    "val_loss": Monitor("loss", min),
}


@dataclass(frozen=True)
class Range:
    """The numbers that a key takes: from `low` to `high`, and `also`, one number outside of this range.

    As in mathematics, "[" and "]" in `ends` include the limit, "(" and ")" exclude it. For a list, `lengths` are the
    shortest and the longest length, or the only length, and each number must be in the range.
    """

    low: float
    high: float
    ends: str = "[]"
    also: float | None = None
    lengths: tuple[int, ...] = ()

    def __contains__(self, value: Any) -> bool:
        """Tells whether a number, or each number of a list, is in the range; NaN never is."""
        if self.lengths:
            one = dataclasses.replace(self, lengths=())
            return self.lengths[0] <= len(value) <= self.lengths[-1] and all(number in one for number in value)
        is_above = value > self.low if self.ends[0] == "(" else value >= self.low
        is_below = value < self.high if self.ends[1] == ")" else value <= self.high
        return value == self.also or (is_above and is_below)

    def __str__(self) -> str:
        """Describes the range, e.g. "above 0 and at most 1"."""
        low, high = "above" if self.ends[0] == "(" else "at least", "below" if self.ends[1] == ")" else "at most"
        count = f"{' to '.join(map(str, self.lengths))} numbers, each " if self.lengths else ""
        also = "" if self.also is None else f", or {self.also:g}"
        return f"{count}{low} {self.low:,} and {high} {self.high:,}{also}"


def number(low: float, high: float, ends: str = "[]", *lengths: int, also: float | None = None, **more: Any) -> Any:
    """Declares a number, or a list of them, with its range: see `Range`."""
    return field(metadata={"range": Range(low, high, ends, also, lengths)}, **more)


def choice(*values: str | int | None) -> Any:
    """Declares a key that takes one of a few values; OmegaConf refuses `Literal`."""
    return field(metadata={"choices": values})


def path(**more: Any) -> Any:
    """Declares a path; the command line takes it exactly as the shell passes it."""
    return field(metadata={"is_path": True}, **more)


def list_keys(schema: type, prefix: str = "") -> dict[str, "dataclasses.Field[Any]"]:
    """Lists the keys of a configuration with their fields, including groups, e.g. "clip" and "clip.crop"."""
    keys = {}
    for own in dataclasses.fields(schema):
        keys[prefix + own.name] = own
        if isinstance(own.type, type) and dataclasses.is_dataclass(own.type):
            keys |= list_keys(own.type, f"{prefix}{own.name}.")
    return keys


@dataclass(kw_only=True)
class ModelConfig:
    """The network: a size of `vswin.models.zoo.SIZES`, its initial weights and the recipe that they need."""

    name: str
    init_from: str | None = path()
    learning_rate: float = number(0, 1_000)
    weight_decay: float = number(0, 1_000)
    backbone_multiplier: float = number(0, 1_000)
    dropout: float = number(0, 1, "[)")
    resize_bias: bool
    freeze_stages: int = number(0, 100)
    freeze: list[str]
    # None: the value in vswin.models.zoo.SIZES
    embed_dim: int | None = number(1, 8_192, default=None)
    depths: list[int] | None = number(1, 1_000, "[]", 1, 8, default=None)
    num_heads: list[int] | None = number(1, 8_192, "[]", 1, 8, default=None)
    window_size: list[int] | None = number(1, 1_024, "[]", 3, default=None)
    patch_size: list[int] | None = number(1, 1_024, "[]", 3, default=None)
    drop_path_rate: float | None = number(0, 1, "[)", default=None)


@dataclass(kw_only=True)
class DatasetConfig:
    """The videos and their labels: see `vswin.data.catalog`."""

    name: str
    # None: the name
    title: str | None
    task: str = choice(SINGLE_LABEL, MULTI_LABEL)
    root: str = path()
    source: str | None = choice(None, "videos", "tfds")
    tfds: str | None
    tfds_dir: str | None = path()
    download: bool
    train_list: str | None = path()
    val_list: str | None = path()
    # None: the test list of the data set
    test_list: str | None = path(default=None)
    val_fraction: float = number(0, 1, "[)")
    folds: int | None = number(2, 1_000, default=None)
    allow_missing: bool
    box_margin: float = number(0, 100)
    num_classes: int | None = number(2, 1_000_000)
    split: int = number(1, 1_000)
    epochs: int = number(1, 1_000_000)
    batch_size: int = number(1, 1_000_000)
    warmup_epochs: float = number(0, 1_000_000)
    allow_flip: bool
    crop_area: list[float] = number(0, 1, "(]", 2)
    max_bad_share: float = number(0, 1)
    decoder: str = choice("auto", "opencv", "pyav")
    clip_timeout_sec: float | None = number(0, 1_000_000, "(]")
    isolate: bool
    cache: str = choice("none", "ram", "disk")
    cache_dir: str = path()

    @property
    def shown_name(self) -> str:
        """How summaries, reports and tables name the data set."""
        return self.title or self.name

    @property
    def is_multi_label(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return self.task == MULTI_LABEL


@dataclass(kw_only=True)
class ClipConfig:
    """How frames become clips and views; sizes are in pixels and frames."""

    num_frames: int = number(1, 4_096)
    frame_stride: int = number(1, 10_000)
    resize: int = number(1, 8_192)
    crop: int = number(1, 8_192)
    num_clips: int = number(1, 10_000)
    num_crops: int = choice(1, 3)
    sampling: str = choice(*SAMPLINGS)
    spacing: str = choice(*SPACINGS)
    views_per_step: int = number(1, 1_000_000)

    def __post_init__(self) -> None:
        """Accepts "uniform", the former name of "segments" in the API."""
        if self.sampling == "uniform":
            self.sampling = "segments"


@dataclass(kw_only=True)
class AugmentConfig:
    """Random changes of training clips; all frames of a clip share one draw."""

    crop_area: list[float] = number(0, 1, "(]", 2)
    crop_aspect: list[float] = number(0, 100, "(]", 2)
    flip: float = number(0, 1)
    rand_augment: str = choice("none", "official", "no_flip")
    rand_augment_ops: int = number(0, 18)
    rand_augment_magnitude: int = number(0, 30)
    color_jitter: list[float] = number(0, 100, "[]", 4)
    erasing: float = number(0, 1)
    # Below 0.05, most draws of Beta(alpha, alpha) are 0 or 1 within floating-point precision.
    mixup: float = number(0.05, 100, also=0)
    cutmix: float = number(0.05, 100, also=0)
    label_smoothing: float = number(0, 1)
    repeats: int = number(1, 1_000)
    balance: bool

    @property
    def in_pairs(self) -> bool:
        """Whether neighbours in a batch are mixed, so that each part of it holds an even number of clips."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(kw_only=True)
class LossConfig:
    """How much classes and clips count in the training loss: see `vswin.training.loss`."""

    # A dictionary maps names of classes to weights.
    class_weights: Any = choice(*CLASS_WEIGHTS)  # noqa: RUF009
    effective_beta: float = number(0, 1, "[)")
    focal_gamma: float = number(0, 100)
    negative_gamma: float | None = number(0, 100)
    negative_margin: float = number(0, 1, "[)")


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW with parameter groups, and the learning rate over time."""

    name: str = choice("adamw", "adamw_addons")
    groups: str = choice("official", "mmaction2", "backbone_and_head")
    learning_rate: float = number(0, 1_000)
    weight_decay: float = number(0, 1_000)
    backbone_multiplier: float = number(0, 1_000)
    layer_decay: float = number(0, 1, "(]")
    beta_1: float = number(0, 1, "[)")
    beta_2: float = number(0, 1, "[)")
    epsilon: float = number(0, 1, "(]")
    clip_norm: float | None = number(0, 10**12, "(]")
    ema_decay: float | None = number(0, 1, "()")
    schedule: str = choice("cosine", "cosine_per_epoch")
    warmup_epochs: float = number(0, 1_000_000)
    warmup_ratio: float = number(0, 1)


@dataclass(kw_only=True)
class RuntimeConfig:
    """How the computation runs on this machine."""

    strategy: str = choice("auto", "one_device", "mirrored", "multi_worker")
    precision: str = choice(*PRECISIONS)
    micro_batches: int = number(1, 1_000_000)
    remat: bool
    jit: bool


@dataclass(kw_only=True)
class LoggerConfig:
    """The logs that a training run writes besides its output in the terminal."""

    tensorboard: bool
    csv: bool
    wandb: bool
    wandb_project: str
    wandb_weights: bool


@dataclass(kw_only=True)
class TrainConfig:
    """A training run: `configs/train.yaml`."""

    model: ModelConfig
    dataset: DatasetConfig
    clip: ClipConfig
    augment: AugmentConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    runtime: RuntimeConfig
    logger: LoggerConfig
    seed: int = number(0, 2**32 - 1)
    epochs: int = number(1, 1_000_000)
    monitor: str = choice("auto", *MONITORS)
    patience: int | None = number(1, 1_000_000)
    save_minutes: float | None = number(0, 1_000_000, "(]")
    save_steps: int | None = number(1, 1_000_000_000)
    keep_states: int = number(1, 1_000_000)
    batch_size: int = number(1, 1_000_000)
    init_from: str | None = path()
    source: str | None
    output_dir: str | None = path()
    resume: bool

    def __post_init__(self) -> None:
        """Chooses the figure that fits the task."""
        if self.monitor == "auto":
            self.monitor = "val_map" if self.dataset.is_multi_label else "val_top1"


@dataclass(kw_only=True)
class EvaluateConfig:
    """An evaluation: `configs/evaluate.yaml`."""

    model: ModelConfig
    dataset: DatasetConfig
    clip: ClipConfig
    runtime: RuntimeConfig
    run: str | None = path()
    weights: str = choice("best", "raw", "ema")
    batch_size: int | None = number(1, 1_000_000)
    init_from: str | None = path()
    source: str | None
    output_dir: str | None = path()
    allow_bad_videos: bool
    average: str = choice(*AVERAGES)
    results_dir: str | None = path()
    tensorboard: bool
    wandb: bool


@dataclass(kw_only=True)
class SplitsConfig(TrainConfig):
    """Trainings and tests on splits or folds, with several seeds: `configs/splits.yaml`."""

    folds: int | None
    seeds: int = number(1, 1_000)


@dataclass(kw_only=True)
class DataCheckConfig(TrainConfig):
    """A check of every file of a data set, configured as for training: `configs/data_check.yaml`."""

    decode: bool
    report: str | None = path()
    clean_lists: str | None = path()


@dataclass(kw_only=True)
class DataPrepareConfig(TrainConfig):
    """The packing of a data set's files, configured as for training: `configs/data_prepare.yaml`."""

    shards: int = number(1, 500)  # each stays open while training reads
    short_side: int | None = number(16, 8_192)
    beam: list[str] | None


@dataclass(kw_only=True)
class DataShowConfig(TrainConfig):
    """Pictures of training clips: `configs/data_show.yaml`."""

    num_clips: int = number(1, 10_000)
    output: str = path()
