"""Fits the weights of a checkpoint to a network: inflates those of an image network, resizes bias tables."""

from dataclasses import dataclass

import numpy as np

from vswin.errors import InputError
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.inflate import inflate
from vswin.weights.recognise import fits
from vswin.weights.resize_bias import resize_bias_table
from vswin.zoo import ModelSize, Triple

_TABLE_SUFFIX = "relative_position_bias_table"
_NUM_NAMED = 3


@dataclass(frozen=True)
class Adapted:
    """Holds weights that fit a network but for its head.

    Args:
        tensors: official name -> values in official layout.
        inflated: names of what got a time axis.
        resized: names of the bias tables that were interpolated.
        note: from what to what, for people; empty if nothing changed.
    """

    tensors: dict[str, np.ndarray]
    inflated: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    note: str = ""


def adapt(checkpoint: Checkpoint, size: ModelSize, resize_bias: bool) -> Adapted:
    """Fits weights to a network.

    Args:
        checkpoint: the weights.
        size: the network.
        resize_bias: whether bias tables of a video network with another window may be resized. Those of an image
            network are, as the official inflation does.

    Returns:
        The weights; the head, if there is one, as it is in the checkpoint.

    Raises:
        InputError: if the network is another one, or another window and `resize_bias` is false.
    """
    if checkpoint.network.is_2d:
        return _inflate(checkpoint, size)
    differences = fits(checkpoint.tensors, size)
    if not differences and checkpoint.window in (None, size.window_size):
        return Adapted(checkpoint.tensors)
    if not all(difference.name.endswith(_TABLE_SUFFIX) for difference in differences):
        more = f" and {len(differences) - _NUM_NAMED} more" if len(differences) > _NUM_NAMED else ""
        named = "; ".join(str(difference) for difference in differences[:_NUM_NAMED])
        raise InputError(f"the weights are of another network: {named}{more}. {_describe_network(checkpoint)}")
    return _resize(checkpoint, size.window_size, resize_bias)


def _inflate(checkpoint: Checkpoint, size: ModelSize) -> Adapted:
    inflated = inflate(checkpoint.tensors, size.patch_size, size.window_size)
    if differences := fits(inflated.tensors, size):
        named = "; ".join(str(difference) for difference in differences[:_NUM_NAMED])
        raise InputError(f"the image network is another one: {named}. {_describe_network(checkpoint)}")
    changed = tuple(name for name, tensor in inflated.tensors.items() if tensor.shape != checkpoint.tensors[name].shape)
    resized = f", {len(inflated.resized)} bias tables resized" if inflated.resized else ""
    return Adapted(inflated.tensors, changed, inflated.resized, f"from an image network{resized}")


def _resize(checkpoint: Checkpoint, window: Triple, resize_bias: bool) -> Adapted:
    """Resizes the bias tables to another window."""
    old = checkpoint.window or checkpoint.network.window_size
    if old is None:
        candidates = ", ".join(map(str, checkpoint.network.window_candidates))
        raise InputError(f"the weights are of another window, and do not say which: it may be {candidates}")
    if not resize_bias:
        raise InputError(
            f"the weights are of the window {_dense(old)}, the model has {_dense(window)}: give "
            f"model.window_size={_dense(old)}, or model.resize_bias=true to interpolate the bias tables"
        )
    tensors = {
        name: resize_bias_table(tensor, old, window) if name.endswith(_TABLE_SUFFIX) else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    resized = tuple(name for name in tensors if name.endswith(_TABLE_SUFFIX))
    return Adapted(tensors, resized=resized, note=f"window {_dense(old)} to {_dense(window)}")


def _dense(extents: tuple[int, ...]) -> str:
    """Writes extents as the command line wants it, without spaces."""
    return "[" + ",".join(map(str, extents)) + "]"


def _describe_network(checkpoint: Checkpoint) -> str:
    """Says which network the weights do fit, and how to ask for it."""
    network = checkpoint.network
    if network.size_name:
        return f"They fit model={network.size_name}"
    if network.sizes_but_window:
        windows = " or ".join(_dense(window) for window in network.window_candidates)
        return f"They fit model={network.sizes_but_window[0]} with model.window_size={windows}"
    fields = {"embed_dim": network.embed_dim, "depths": network.depths, "num_heads": network.num_heads}
    asked = " ".join(
        f"model.{key}={_dense(value) if isinstance(value, tuple) else value}" for key, value in fields.items()
    )
    windows = " or ".join(_dense(window) for window in network.window_candidates)
    return f"They fit {asked} model.window_size={windows}"
