"""Variables of a TF-Hub SavedModel in official names, by their order.

Keras numbers the layers of such a file across the whole network, so names say little: `dense_9` is the qkv of another
block in another depth. Variables are therefore taken one after another, as the network is built, and each must have
the shape and the last part of the name that its place wants; the numbers must rise.
"""

from collections.abc import Sequence

import numpy as np

from vswin.errors import InputError
from vswin.weights.names import to_official as to_official_layout

# An extent that the network decides.
_ANY = None
_Shape = tuple[int | None, ...]


def is_position_index(array: np.ndarray) -> bool:
    """Says whether a variable is a `relative_position_index`: the port gives it no name, but only it has integers."""
    return array.dtype.kind in "iu" and array.ndim == 2 and array.shape[0] == array.shape[1]


def translate_in_order(variables: Sequence[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Names the variables of a SavedModel of the TF-Hub collection.

    Args:
        variables: name and value, in the order of the SavedModel, position indices left out.

    Returns:
        Official name -> values in official layout, of a backbone; the collection has no heads.

    Raises:
        InputError: if a variable has another name or shape than its place wants, or one is missing or left over.
    Source: GSOC-22-Video-Swin-Transformers convert.py and VideoSwinTransformer/*.py.
    """
    reader = _Reader(variables)
    dim = reader.take("backbone.patch_embed.proj.weight", "kernel", (_ANY, _ANY, _ANY, 3, _ANY))[-1]
    reader.take("backbone.patch_embed.proj.bias", "bias", (dim,))
    reader.take_norm("backbone.patch_embed.norm", dim)
    stage = block = 0
    while reader.num_left > 2:
        if reader.next_rank == 1:
            _take_block(reader, f"backbone.layers.{stage}.blocks.{block}", dim)
            block += 1
        else:
            reader.take(f"backbone.layers.{stage}.downsample.reduction.weight", "kernel", (4 * dim, 2 * dim))
            reader.take_norm(f"backbone.layers.{stage}.downsample.norm", 4 * dim)
            stage, block, dim = stage + 1, 0, 2 * dim
    reader.take_norm("backbone.norm", dim)
    return reader.tensors


def _take_block(reader: "_Reader", prefix: str, dim: int) -> None:
    """Takes the thirteen variables of a block."""
    reader.take_norm(f"{prefix}.norm1", dim)
    reader.take(f"{prefix}.attn.relative_position_bias_table", "relative_position_bias_table", (_ANY, _ANY))
    reader.take_dense(f"{prefix}.attn.qkv", dim, 3 * dim)
    reader.take_dense(f"{prefix}.attn.proj", dim, dim)
    reader.take_norm(f"{prefix}.norm2", dim)
    hidden = reader.take_dense(f"{prefix}.mlp.fc1", dim, _ANY)
    reader.take_dense(f"{prefix}.mlp.fc2", hidden, dim)


class _Reader:
    """Takes variables one after another and gives them their official names."""

    def __init__(self, variables: Sequence[tuple[str, np.ndarray]]) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self._variables = variables
        self._at = 0
        self._last_numbers: dict[str, int] = {}

    @property
    def num_left(self) -> int:
        return len(self._variables) - self._at

    @property
    def next_rank(self) -> int:
        return self._variables[self._at][1].ndim

    def take(self, official: str, leaf: str, shape: _Shape) -> tuple[int, ...]:
        """Takes the next variable as `official`; its name ends with `leaf`. Returns its shape."""
        if self.num_left == 0:
            raise InputError(f"the SavedModel ends after {self._at} variables, before {official}")
        name, array = self._variables[self._at]
        place = f"variable {self._at + 1} of the SavedModel, {name} {array.shape},"
        fits = len(shape) == array.ndim and all(w in (_ANY, g) for w, g in zip(shape, array.shape, strict=True))
        if not fits or name.removesuffix(":0").rpartition("/")[2] != leaf:
            wanted = ", ".join("any" if extent is _ANY else str(extent) for extent in shape)
            raise InputError(
                f"{place} should be {official}: a {leaf} ({wanted}); it has another order than the port saves"
            )
        self._check_numbers(name, place)
        self._at += 1
        self.tensors[official] = to_official_layout(official, array)
        return array.shape

    def take_norm(self, prefix: str, dim: int) -> None:
        """Takes scale and offset of a layer normalisation."""
        self.take(f"{prefix}.weight", "gamma", (dim,))
        self.take(f"{prefix}.bias", "beta", (dim,))

    def take_dense(self, prefix: str, num_in: int, num_out: int | None) -> int:
        """Takes kernel and bias of a dense layer; returns its outputs."""
        outputs = self.take(f"{prefix}.weight", "kernel", (num_in, num_out))[-1]
        self.take(f"{prefix}.bias", "bias", (outputs,))
        return outputs

    def _check_numbers(self, name: str, place: str) -> None:
        """Checks that layers come in the order in which they were made, which their numbers tell."""
        for layer in name.split("/")[:-1]:
            kind, number = _split_number(layer)
            if number < self._last_numbers.get(kind, 0):
                last = f"{kind}_{self._last_numbers[kind]}"
                raise InputError(f"{place} stands after one of {last}; it has another order than the port saves")
            self._last_numbers[kind] = number


def _split_number(layer: str) -> tuple[str, int]:
    """Splits the name that Keras gives to a layer: dense_9 is dense, 9; the first has no number."""
    kind, _, number = layer.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (layer, 0)
