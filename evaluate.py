"""Tests a model on several views of every video: `python evaluate.py run=outputs/<run>`."""

import os
import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from vswin.config.checks import check_random_is_meant
from vswin.config.compose import hydra_errors, quote_paths
from vswin.config.help import print_help_if_asked
from vswin.config.load import CONFIG_DIR, check_overrides, from_run, implied_choices, load_config
from vswin.config.schema import EvaluateConfig
from vswin.errors import clean_errors, end_on_sigterm

ConfigStore.instance().store("evaluate_schema", EvaluateConfig)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="evaluate")
def main(composed) -> None:  # type: ignore[no-untyped-def]
    """Evaluates the composed configuration; the imports wait so that `--help` does not."""
    with clean_errors():
        overrides = HydraConfig.get().overrides.task
        composed = from_run(composed, overrides)
        check_random_is_meant(composed.init_from, overrides)
        config = load_config(composed, EvaluateConfig)
        from vswin.evaluation.run import run_evaluation

        run_evaluation(config, sys.orig_argv)


if __name__ == "__main__":
    # Hydra passes errors on instead of printing them.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    end_on_sigterm()
    with clean_errors(), hydra_errors():
        print_help_if_asked(sys.argv[1:], "evaluate")
        check_overrides(sys.argv[1:], EvaluateConfig)
        sys.argv[1:] = quote_paths([*sys.argv[1:], *implied_choices(sys.argv[1:])], EvaluateConfig)
        main()
