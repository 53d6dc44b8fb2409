"""What differed between runs: their configuration, how they were tested, versions and machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vswin.runs.files import Run
from vswin.runs.settings import format_value, is_setting

ABSENT = "-"
_VERSIONS = ("vswin", "tensorflow")
# Of the protocol of an evaluation: what is no setting, or stands in rows of its own.
_NO_SETTINGS = {"weights", "dataset", "decoder", "short_sides", "date", "model", *_VERSIONS}


class Difference(NamedTuple):
    """Hold a setting that not all runs share.

    Attributes:
        key: E.g. "optimizer.learning_rate"; "test ..." for settings of the evaluation.
        values: One for each run, as on a command line; `ABSENT` where the run does not say.
    """

    key: str
    values: list[str]


def config_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the keys of the configuration whose values differ among the runs that have one."""
    return _differing([run.config for run in runs], is_setting)


def protocol_differences(runs: Sequence[Run]) -> list[Difference]:
    """Lists the settings that differ among the evaluations, the name and the split of the data set among them."""
    return _differing([protocol_settings(run) for run in runs], lambda key: True, "test ")


def environment(runs: Sequence[Run]) -> list[Difference]:
    """Lists what is known of versions and devices, whether it differs or not."""
    known = [Difference("devices of the training", [run.devices or ABSENT for run in runs])]
    for name in _VERSIONS:
        values = [format_value(run.protocol[name]) if name in run.protocol else ABSENT for run in runs]
        known.append(Difference(f"{name} of the evaluation", values))
    return [row for row in known if set(row.values) != {ABSENT}]


def protocol_settings(run: Run) -> Mapping[str, Any] | None:
    """Gives the settings of the evaluation of a run; None if it has none."""
    if not run.protocol:
        return None
    settings = {key: value for key, value in run.protocol.items() if key not in _NO_SETTINGS}
    named = {"dataset": run.test_set.get("name"), "split": run.test_set.get("split")}
    return settings | named


def differs(row: Difference) -> bool:
    """Tells whether the runs that say something say different things."""
    return len(set(row.values) - {ABSENT}) > 1


def _differing(
    configs: Sequence[Mapping[str, Any] | None], is_shown: Callable[[str], bool], prefix: str = ""
) -> list[Difference]:
    keys = dict.fromkeys(key for config in configs if config is not None for key in config if is_shown(key))
    rows = []
    for key in keys:
        values = [None if config is None else _value_of(config, key) for config in configs]
        if len({value for value in values if value is not None}) > 1:
            rows.append(Difference(prefix + key, [ABSENT if value is None else value for value in values]))
    return rows


def _value_of(config: Mapping[str, Any], key: str) -> str:
    return format_value(config[key]) if key in config else ABSENT
