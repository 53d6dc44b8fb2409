"""Describes a file of weights in words: `vswin inspect FILE`."""

from vswin.console import NARROW, Console, say
from vswin.weights.checkpoint import Checkpoint
from vswin.weights.dialects import IMAGE_2D

# Column at which the values start.
_INDENT = 16
_NUM_SHOWN = 8


def print_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> None:
    """Prints the lines of `describe_checkpoint`, wrapped to the window."""
    console = Console(soft_wrap=True)
    hanging = _INDENT if console.width >= NARROW else 2
    for line in describe_checkpoint(checkpoint, is_long):
        say(console, line, hanging=hanging)


def describe_checkpoint(checkpoint: Checkpoint, is_long: bool = False) -> list[str]:
    """Describes weights, a line per fact; `is_long` lists every tensor."""
    network, metadata = checkpoint.network, checkpoint.metadata
    # The known sizes that match, and what the weights can be used for.
    near = " or ".join(network.sizes_but_window)
    size = near and f"{near} but for {'time, a 2D image network' if network.is_2d else 'the window'}"
    windows = [str(list(window)) for window in network.window_candidates]
    if checkpoint.dialect == IMAGE_2D:
        use = "training starts from them (inflated in time, a new head): init_from=<file>"
    elif network.num_classes is None:
        use = "training starts from them: init_from=<file> (a new head)"
    else:
        use = f"training starts from them: init_from=<file>; evaluation, on data of these {network.num_classes} classes"
    names = metadata.get("class_names", []) if network.num_classes else []
    shown = ", ".join([*names[:_NUM_SHOWN], *(["..."] if len(names) > _NUM_SHOWN else [])])
    dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in checkpoint.tensors.values()}))
    more = f", {len(checkpoint.ignored)} more are no weights" if checkpoint.ignored else ""
    rows = {
        "file": str(checkpoint.path),
        "dialect": checkpoint.dialect,
        "model": network.size_name or size or "none of the known sizes",
        "network": f"embed_dim {network.embed_dim}, depths {list(network.depths)}, heads {list(network.num_heads)}, "
        f"patches {list(network.patch_size)}",
        "window": f"one of {', '.join(windows)}" if network.window_size is None else str(list(network.window_size)),
        "tensors": f"{len(checkpoint.tensors)} ({dtypes}){more}",
        "parameters": f"{network.num_parameters:,}",
        "classes": f"{network.num_classes or 'none, there is no head'}{f': {shown}' if shown else ''}",
        "use": use,
    }
    said = {"size", "class_names", "num_classes", "model", "videos"}
    rows |= {key: str(value) for key, value in metadata.items() if key not in said}
    lines = [f"{key + ':':<{_INDENT}}{value}" for key, value in rows.items()]
    if is_long:
        lines += [f"  {name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in checkpoint.tensors.items()]
        lines += [f"  {name} (no weight)" for name in checkpoint.ignored]
    return lines
