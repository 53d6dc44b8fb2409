"""What a file of weights holds, in words: `vswin inspect FILE`."""

from vswin.console import Console
from vswin.tables import NARROW, say
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.dialects import IMAGE_2D

# How far the facts stand to the right.
_INDENT = 16
_NUM_SHOWN = 8


def print_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> None:
    """Prints what `describe_checkpoint` says, folded to the window.

    Args:
        checkpoint: the weights.
        is_long: whether every tensor is listed.
    """
    console = Console(soft_wrap=True)
    hanging = _INDENT if console.width >= NARROW else 2
    for line in describe_checkpoint(checkpoint, is_long):
        say(console, line, hanging=hanging)


def describe_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> list[str]:
    """Describes weights for a person, a line per fact.

    Args:
        checkpoint: the weights.
        is_long: whether every tensor is listed.
    """
    network = checkpoint.network
    names = checkpoint.metadata.get("class_names")
    shown = "" if names is None else f": {', '.join(names[:_NUM_SHOWN])}{', ...' if len(names) > _NUM_SHOWN else ''}"
    dtypes = sorted({str(tensor.dtype) for tensor in checkpoint.tensors.values()})
    rows = {
        "file": str(checkpoint.path),
        "dialect": checkpoint.dialect,
        "model": _describe_size(checkpoint),
        "network": f"embed_dim {network.embed_dim}, depths {list(network.depths)}, heads {list(network.num_heads)}, "
        f"patches {list(network.patch_size)}",
        "window": _describe_window(checkpoint),
        "tensors": f"{len(checkpoint.tensors)} ({', '.join(dtypes)})"
        + (f", {len(checkpoint.ignored)} more are no weights" if checkpoint.ignored else ""),
        "parameters": f"{network.num_parameters:,}",
        "classes": "none, there is no head" if network.num_classes is None else f"{network.num_classes}{shown}",
        "use": _describe_use(checkpoint),
    }
    rows |= {
        key: str(value)
        for key, value in checkpoint.metadata.items()
        if key not in ("size", "class_names", "num_classes", "model", "videos") and value is not None
    }
    lines = [f"{key + ':':<{_INDENT}}{value}" for key, value in rows.items()]
    if is_long:
        lines += [f"  {name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in checkpoint.tensors.items()]
        lines += [f"  {name} (no weight)" for name in checkpoint.ignored]
    return lines


def _describe_size(checkpoint: Checkpoint) -> str:
    network = checkpoint.network
    if network.size_name is not None:
        return network.size_name
    if not network.sizes_but_window:
        return "none of the known sizes"
    what = "but for time, a 2D image network" if network.is_2d else "but for the window"
    return f"{' or '.join(network.sizes_but_window)} {what}"


def _describe_window(checkpoint: Checkpoint) -> str:
    network = checkpoint.network
    if network.window_size is not None:
        return str(list(network.window_size))
    return "one of " + ", ".join(str(list(window)) for window in network.window_candidates)


def _describe_use(checkpoint: Checkpoint) -> str:
    """Says what the weights can start, or do."""
    network = checkpoint.network
    if checkpoint.dialect == IMAGE_2D:
        return "training starts from them (inflated in time, a new head): init_from=<file>"
    training = "training starts from them: init_from=<file>"
    if network.num_classes is None:
        return f"{training} (a new head)"
    return f"{training}; evaluation, on data of these {network.num_classes} classes"
