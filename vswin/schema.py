"""The schema of a configuration: one dataclass per config group, and one per command.

Default values stand in `configs/*.yaml`, so the fields here have none; the exception is `ModelConfig`, where
`None` means "as the size in `vswin.zoo.SIZES` says". `vswin.config` fills these dataclasses and checks them.
"""

from dataclasses import dataclass
from typing import Any

# OmegaConf's mark for a value that has to be given; written out, so that nothing below the entry points needs it.
MISSING: Any = "???"


@dataclass
class ModelConfig:
    """What is trained: a size of `vswin.zoo.SIZES`, its starting weights and the recipe they call for."""

    name: str = MISSING
    init_from: str | None = MISSING
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    backbone_multiplier: float = MISSING
    dropout: float = MISSING
    resize_bias: bool = MISSING
    freeze_stages: int = MISSING
    freeze: list[str] = MISSING
    # None: as in vswin.zoo.SIZES
    embed_dim: int | None = None
    depths: list[int] | None = None
    num_heads: list[int] | None = None
    window_size: list[int] | None = None
    patch_size: list[int] | None = None
    drop_path_rate: float | None = None


@dataclass
class DatasetConfig:
    """Which videos, with which labels: see `vswin.data.catalog`."""

    name: str = MISSING
    root: str = MISSING
    source: str | None = MISSING
    tfds: str | None = MISSING
    tfds_dir: str | None = MISSING
    download: bool = MISSING
    train_list: str | None = MISSING
    val_list: str | None = MISSING
    # None: the data set's own
    test_list: str | None = None
    val_fraction: float = MISSING
    allow_missing: bool = MISSING
    num_classes: int | None = MISSING
    split: int = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    warmup_epochs: float = MISSING
    allow_flip: bool = MISSING
    crop_area: list[float] = MISSING
    max_bad_share: float = MISSING
    decoder: str = MISSING
    clip_timeout_sec: float | None = MISSING
    isolate: bool = MISSING
    cache: str = MISSING
    cache_dir: str = MISSING


@dataclass
class ClipConfig:
    """How frames become clips and views; pixels and frames."""

    num_frames: int = MISSING
    frame_stride: int = MISSING
    resize: int = MISSING
    crop: int = MISSING
    num_clips: int = MISSING
    num_crops: int = MISSING
    sampling: str = MISSING
    spacing: str = MISSING
    views_per_step: int = MISSING

    def __post_init__(self) -> None:
        """Takes the word that the API once had for it."""
        if self.sampling == "uniform":
            self.sampling = "segments"


@dataclass
class AugmentConfig:
    """Random changes of training clips; one draw per clip, alike for all its frames."""

    crop_area: list[float] = MISSING
    crop_aspect: list[float] = MISSING
    flip: float = MISSING
    rand_augment: str = MISSING
    rand_augment_ops: int = MISSING
    rand_augment_magnitude: int = MISSING
    color_jitter: list[float] = MISSING
    erasing: float = MISSING
    mixup: float = MISSING
    cutmix: float = MISSING
    label_smoothing: float = MISSING
    repeats: int = MISSING


@dataclass
class OptimizerConfig:
    """AdamW with parameter groups, and the learning rate over time."""

    name: str = MISSING
    groups: str = MISSING
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    backbone_multiplier: float = MISSING
    layer_decay: float = MISSING
    beta_1: float = MISSING
    beta_2: float = MISSING
    epsilon: float = MISSING
    clip_norm: float | None = MISSING
    ema_decay: float | None = MISSING
    schedule: str = MISSING
    warmup_epochs: float = MISSING
    warmup_ratio: float = MISSING


@dataclass
class RuntimeConfig:
    """How the computation runs on this machine."""

    strategy: str = MISSING
    precision: str = MISSING
    micro_batches: int = MISSING
    remat: bool = MISSING
    jit: bool = MISSING


@dataclass
class LoggerConfig:
    """Which logs a training run writes besides what it prints."""

    tensorboard: bool = MISSING
    csv: bool = MISSING
    wandb: bool = MISSING
    wandb_project: str = MISSING
    wandb_weights: bool = MISSING


@dataclass
class TrainConfig:
    """A training run: `configs/train.yaml`."""

    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    augment: AugmentConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    runtime: RuntimeConfig = MISSING
    logger: LoggerConfig = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    patience: int | None = MISSING
    save_minutes: float | None = MISSING
    save_steps: int | None = MISSING
    keep_states: int = MISSING
    batch_size: int = MISSING
    init_from: str | None = MISSING
    source: str | None = MISSING
    output_dir: str | None = MISSING
    resume: bool = MISSING


@dataclass
class EvaluateConfig:
    """An evaluation: `configs/evaluate.yaml`."""

    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    runtime: RuntimeConfig = MISSING
    run: str | None = MISSING
    weights: str = MISSING
    batch_size: int | None = MISSING
    init_from: str | None = MISSING
    source: str | None = MISSING
    output_dir: str | None = MISSING
    allow_bad_videos: bool = MISSING
    average: str = MISSING
    results_dir: str | None = MISSING
    tensorboard: bool = MISSING
    wandb: bool = MISSING


@dataclass
class DataCheckConfig:
    """A look at every file of a data set: `configs/data_check.yaml`."""

    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    decode: bool = MISSING
    report: str | None = MISSING
    clean_lists: str | None = MISSING


@dataclass
class DataPrepareConfig:
    """The packing of a data set's files: `configs/data_prepare.yaml`; the clip comes with the data set alone."""

    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    output_dir: str | None = MISSING
    shards: int = MISSING
    file_format: str = MISSING
    short_side: int | None = MISSING
    beam: list[str] | None = MISSING


@dataclass
class DataShowConfig:
    """Pictures of training clips: `configs/data_show.yaml`."""

    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    augment: AugmentConfig = MISSING
    seed: int = MISSING
    num_clips: int = MISSING
    output: str = MISSING
