"""List what differed between runs: configuration, evaluation protocol, versions and machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vswin.runs.figures import format_value, is_setting
from vswin.runs.files import Run

ABSENT = "-"
_VERSIONS = ("vswin", "tensorflow")
# Keys of an evaluation's protocol that are not settings, or have rows of their own.
_NO_SETTINGS = {"weights", "dataset", "decoder", "short_sides", "date", "model", *_VERSIONS}


class Difference(NamedTuple):
    """A setting and its value for each run, written as on a command line, or `ABSENT`."""

    key: str
    values: list[str]


def config_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the configuration keys whose values differ among the runs that have a configuration."""
    return _differing([run.config for run in runs], is_setting)


def protocol_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the settings that differ among the evaluations, including the name and the split of the data set."""
    settings: list[dict[str, Any] | None] = []
    for run in runs:
        kept = {key: value for key, value in run.protocol.items() if key not in _NO_SETTINGS}
        named = {"dataset": run.test_set.get("name"), "split": run.test_set.get("split")}
        settings.append(kept | named if run.protocol else None)
    return _differing(settings, lambda key: True, "test ")


def environment(runs: Sequence[Run]) -> list[Difference]:
    """Lists the known versions and devices, whether or not they differ."""
    known = [Difference("devices of the training", [run.devices or ABSENT for run in runs])]
    for name in _VERSIONS:
        values = [format_value(run.protocol[name]) if name in run.protocol else ABSENT for run in runs]
        known.append(Difference(f"{name} of the evaluation", values))
    return [row for row in known if set(row.values) != {ABSENT}]


def _differing(
    configs: Sequence[Mapping[str, Any] | None], is_shown: Callable[[str], bool], prefix: str = ""
) -> list[Difference]:
    keys = dict.fromkeys(key for config in configs if config is not None for key in config if is_shown(key))
    rows = []
    for key in keys:
        values = [
            None if config is None else format_value(config[key]) if key in config else ABSENT for config in configs
        ]
        if len({value for value in values if value is not None}) > 1:
            rows.append(Difference(prefix + key, [ABSENT if value is None else value for value in values]))
    return rows
