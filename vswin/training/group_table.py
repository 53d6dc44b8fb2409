"""The table of what is trained: each parameter group with its rates, decay and size. Called by `run`."""

import io
from collections.abc import Collection, Mapping

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from vswin.schema import OptimizerConfig
from vswin.training.optimizer import ParameterGroup, assign_groups

_WIDTH = 100
_HEADINGS = ("group", "rate now", "full rate", "decay", "parameters")


def describe_groups(
    weights: Mapping[str, tf.Variable], config: OptimizerConfig, rate_now: float, frozen: Collection[str] = ()
) -> list[str]:
    """Writes a table of the parameter groups in use, a line for each.

    Args:
        weights: official name -> variable, all of the model's.
        config: supplies the groups and the full rate.
        rate_now: base rate of the step that comes next.
        frozen: official names of the weights that are not trained.

    Returns:
        The headings, a line per group, and one for frozen weights if there are any. Where layer-wise decay gives a
        group several rates, the lowest and the highest.
    """
    groups = assign_groups(weights, config)
    sizes = {name: int(variable.shape.num_elements()) for name, variable in weights.items()}
    members: dict[tuple[str, float], list[str]] = {}
    for name, group in groups.items():
        if name not in frozen:
            members.setdefault((group.name, group.weight_decay), []).append(name)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading == "parameters" else "left", no_wrap=True)
    for (group_name, decay), names in members.items():
        used = [groups[name] for name in names]
        rates = (_range(used, rate) for rate in (rate_now, config.learning_rate))
        table.add_row(group_name, *rates, f"{decay:g}", f"{sum(sizes[name] for name in names):,}")
    if frozen:
        num_frozen, num_all = sum(sizes[name] for name in frozen), sum(sizes.values())
        table.add_row("frozen", "", "", "", f"{num_frozen:,}")
        share = f"{100 * (1 - num_frozen / num_all):.3g} % of {num_all:,} parameters are trained"
        return [*_render(table), share]
    return _render(table)


def _range(groups: Collection[ParameterGroup], base_rate: float) -> str:
    """Writes the rates of a group's layers."""
    rates = [base_rate * group.learning_rate_multiplier for group in groups]
    lowest, highest = f"{min(rates):.3g}", f"{max(rates):.3g}"
    return highest if lowest == highest else f"{lowest} to {highest}"


def _render(table: Table) -> list[str]:
    """Renders a table as plain lines, for the terminal and the log file alike."""
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
