"""Which weights are trained, and how: parameter groups, frozen weights, AdamW and its learning rate schedule."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras as keras

from vswin.config.schema import OptimizerConfig, TrainConfig
from vswin.errors import InputError, nearest
from vswin.models.draws import Draws
from vswin.weights.names import HEAD_PREFIX, read_depths

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

_LAYER = re.compile(r"backbone\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")
_BLOCK = re.compile(r"backbone\.layers\.\d+\.blocks\.\d+\.")


class ParameterGroup(NamedTuple):
    """How the optimizer treats a set of weights."""

    name: str
    learning_rate_multiplier: float
    weight_decay: float


def assign_groups(names: Iterable[str], config: OptimizerConfig) -> dict[str, ParameterGroup]:
    """Assigns every weight of a model, by official name, to a group; layer-wise decay multiplies the group's rate."""
    names = list(names)
    depths, groups = read_depths(names), {}
    for name in names:
        group = find_group(name, config)
        multiplier = group.learning_rate_multiplier * layer_multiplier(name, depths, config.layer_decay)
        groups[name] = group._replace(learning_rate_multiplier=multiplier)
    return groups


def find_group(name: str, config: OptimizerConfig) -> ParameterGroup:
    """Finds the group of a weight, given by official name, with the rule `optimizer.groups`.

    Source: official: Video-Swin-Transformer configs/recognition/swin, paramwise_cfg, as mmcv applies it: only the
        longest matching key counts, so layer norms of the backbone do decay. mmaction2: mmaction2 1.x
        engine/optimizers/swin_optim_wrapper_constructor.py, whose Swin-T reaches the same accuracy: all matching keys
        multiply, so layer norms do not decay and bias tables learn at the backbone's rate.
    """
    decay, backbone = config.weight_decay, config.backbone_multiplier
    is_bias_table = name.endswith("relative_position_bias_table")
    if not name.startswith("backbone."):
        return ParameterGroup("head", 1.0, decay)
    if config.groups == "official" and is_bias_table:
        return ParameterGroup("bias tables", 1.0, 0.0)
    if config.groups == "mmaction2" and is_bias_table:
        return ParameterGroup("bias tables", backbone, 0.0)
    if config.groups == "mmaction2" and "norm" in name:
        return ParameterGroup("layer norms", backbone, 0.0)
    return ParameterGroup("backbone", backbone, decay)


def layer_multiplier(name: str, depths: Sequence[int], decay: float) -> float:
    """Computes the rate multiplier of a weight under layer-wise decay: the closer to the input, the lower.

    Layer 0 is the patch embedding, layer k + 1 is block k counted over all stages, and the topmost layer is the last
    normalisation and the head. A patch merging belongs to the block before it. `decay` is the rate of a layer divided
    by the rate of the layer above.

    Source: BEiT, get_num_layer_for_vit, as VideoMAE uses it; for stages SimMIM optimizer.py, get_swin_layer.
    """
    top = sum(depths) + 1
    if match := _LAYER.match(name):
        stage, block = int(match[1]), match[2]
        layer = sum(depths[:stage]) + (depths[stage] if block is None else int(block) + 1)
    else:
        layer = 0 if name.startswith("backbone.patch_embed.") else top
    return decay ** (top - layer)


def find_frozen(names: Collection[str], freeze_stages: int, patterns: Sequence[str]) -> frozenset[str]:
    """Finds the official names of the frozen weights, which have no gradient, no moments and no decay.

    `freeze_stages` is the number of first stages to freeze, with the patch embedding before them; 0 for none.
    Upstream's `frozen_stages` is the same, except that its 0 freezes the patch embedding. `patterns` are shell
    patterns of official names, e.g. `backbone.*`; `*` also matches dots.

    Raises:
        InputError: if the model has fewer stages, a pattern matches nothing, or nothing is left to train.
    Source: Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, _freeze_stages.
    """
    num_stages = len(read_depths(names))
    if freeze_stages > num_stages:
        raise InputError(f"model.freeze_stages={freeze_stages}: the model has {num_stages} stages")
    stages = [f"backbone.layers.{i}." for i in range(freeze_stages)]
    prefixes = ("backbone.patch_embed.", *stages) if freeze_stages else ()
    frozen = {name for name in names if name.startswith(prefixes)}
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            parents = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
            choices = [*names, *sorted(f"{parent}.*" for parent in parents)]
            raise InputError(
                f"model.freeze: {pattern!r} matches no weight; {nearest(pattern, choices)}. Names are the official "
                "ones, as in checkpoints, e.g. 'backbone.layers.0.blocks.0.attn.qkv.weight'"
            )
        frozen |= matches
    if len(frozen) == len(names):
        raise InputError(
            f"model.freeze_stages={freeze_stages} and model.freeze={list(patterns)} freeze every weight: leave at "
            f"least the head ({HEAD_PREFIX}) to train"
        )
    return frozenset(frozen)


def run_frozen_parts_as_tested(draws: Draws, names: Sequence[str], frozen: Collection[str]) -> Draws:
    """Turns off drop path in fully frozen blocks, and dropout before a frozen head, as upstream's frozen stages do.

    `names` are the official names of all weights, in order.
    """
    is_frozen = [all(name in frozen for name in block) for block in _group_by_block(names)]
    head = [name for name in names if name.startswith(HEAD_PREFIX)]
    return Draws(
        tf.where(tf.constant(is_frozen)[:, tf.newaxis], 1.0, draws.drop_path),  # [B, blocks, 2]
        tf.ones_like(draws.dropout) if all(name in frozen for name in head) else draws.dropout,
    )


def count_passed_blocks(names: Sequence[str], frozen: Collection[str]) -> int:
    """Counts the first blocks that no gradient reaches: these blocks and everything before them are frozen.

    `names` are the official names of all weights, in the order of computation.
    """
    passed = set(takewhile(lambda name: name in frozen, names))
    return sum(all(name in passed for name in block) for block in _group_by_block(names))


def _group_by_block(names: Sequence[str]) -> Collection[list[str]]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        if match := _BLOCK.match(name):
            blocks.setdefault(match[0], []).append(name)
    return blocks.values()


@dataclass(eq=False)
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine from `learning_rate` to 0, multiplied by a linear warm-up.

    Source: mmcv 1.3 runner/hooks/lr_updater.py, CosineAnnealingLrUpdaterHook with warmup="linear",
        warmup_by_epoch=True (is_staircase=True).
    """

    learning_rate: float  # rate at the start of the cosine
    steps_per_epoch: int  # optimizer steps in an epoch, >= 1
    epochs: int  # length of the cosine
    warmup_epochs: float = 0.0  # length of the warm-up; may end within an epoch
    warmup_ratio: float = 0.1  # factor at step 0, from which the warm-up climbs to 1
    # Whether the cosine moves only between epochs, as in the official recipe; the warm-up always moves every step.
    is_staircase: bool = False

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the rate, float32, at an optimizer step counted from 0."""
        step = tf.cast(step, tf.float32)
        epoch = step / self.steps_per_epoch
        if self.is_staircase:
            # Integers, so that the first step of an epoch is never rounded into the one before.
            epoch = tf.cast(tf.cast(step, tf.int64) // self.steps_per_epoch, tf.float32)
        rate = 0.5 * self.learning_rate * (1.0 + tf.cos(math.pi * epoch / self.epochs))
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        if warmup_steps > 0:
            warmed = tf.minimum(step / warmup_steps, 1.0)
            rate *= self.warmup_ratio + (1.0 - self.warmup_ratio) * warmed
        return rate


def build_schedule(config: TrainConfig, steps: int) -> WarmupCosine:
    """Builds the learning rate schedule of a run with `steps` per epoch."""
    optimizer = config.optimizer
    is_staircase = optimizer.schedule == "cosine_per_epoch"
    warmup = (optimizer.warmup_epochs, optimizer.warmup_ratio)
    return WarmupCosine(optimizer.learning_rate, steps, config.epochs, *warmup, is_staircase)


class AdamW(keras.optimizers.Optimizer):
    """Adam with decoupled weight decay; each variable has the rate multiplier and the decay of its group.

    `groups` maps `variable.name` to a group; a variable without one is an error. `epsilon` is added to the root of the
    bias-corrected second moment, as in PyTorch (Keras adds it before the correction). `clip_norm` is the largest global
    norm of the gradients, summed over all replicas; None for no limit.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2; torch.optim.AdamW.
    """

    def __init__(
        self,
        learning_rate: Rate,
        groups: Mapping[str, ParameterGroup],
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(name="AdamW", global_clipnorm=clip_norm, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.groups = dict(groups)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._has_moments = False

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the two moments of every variable, float32 zeros; raises a ValueError if a variable has no group."""
        super().build(var_list)
        if self._has_moments:
            return
        missing = [variable.name for variable in var_list if variable.name not in self.groups]
        if missing:
            raise ValueError(f"{len(missing)} variables have no parameter group: {missing[:5]}")
        self._group_of_key = {self._var_key(variable): self.groups[variable.name] for variable in var_list}
        self._momentums = [self.add_variable_from_reference(variable, "m") for variable in var_list]
        self._velocities = [self.add_variable_from_reference(variable, "v") for variable in var_list]
        self._has_moments = True

    def last_rates(self) -> dict[str, float]:
        """Returns the rate of each group in the last step, by group name; the highest if its layers differ."""
        rate = float(keras.backend.get_value(self.learning_rate))
        multipliers: dict[str, float] = {}
        for group in self.groups.values():
            multipliers[group.name] = max(multipliers.get(group.name, 0.0), group.learning_rate_multiplier)
        return {name: rate * multiplier for name, multiplier in multipliers.items()}

    def _compute_current_learning_rate(self) -> None:
        """Computes the values that all variables share; Keras calls it once at the start of a step."""
        super()._compute_current_learning_rate()
        step = tf.cast(self.iterations + 1, tf.float32)
        self._rate = tf.cast(self.learning_rate, tf.float32)
        self._beta_powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        # The kernel adds epsilon before the bias correction.
        self._uncorrected_epsilon = self.epsilon * tf.sqrt(1.0 - self._beta_powers[1])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its moments in one pass."""
        key = self._var_key(variable)
        group = self._group_of_key[key]
        rate = self._rate * group.learning_rate_multiplier
        if group.weight_decay > 0:
            variable.assign_sub(rate * group.weight_decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[self._index_dict[key]].handle,
            v=self._velocities[self._index_dict[key]].handle,
            beta1_power=self._beta_powers[0],
            beta2_power=self._beta_powers[1],
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self._uncorrected_epsilon,
            # Bias tables are read with gather, whose gradient has the form of slices.
            grad=tf.convert_to_tensor(gradient),
        )


def build_optimizer(
    config: OptimizerConfig,
    weights: Mapping[str, tf.Variable],
    learning_rate: Rate,
    frozen: Collection[str] = (),
) -> keras.optimizers.Optimizer:
    """Builds AdamW, ours or TensorFlow Addons', for all weights of a model except the frozen ones."""
    named = assign_groups(weights, config)
    groups = {variable.name: named[name] for name, variable in weights.items()}
    if len(groups) != len(weights):
        raise ValueError("two variables of the model share a name")
    for name in frozen:
        del groups[weights[name].name]
    if config.name == "adamw_addons":
        # TensorFlow Addons is available only for TensorFlow 2.15, and needed only here.
        from vswin.training.addons_optimizer import build_addons_optimizer

        return build_addons_optimizer(config, groups, learning_rate)
    return AdamW(learning_rate, groups, config.beta_1, config.beta_2, config.epsilon, config.clip_norm)
