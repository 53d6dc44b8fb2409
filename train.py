"""Fine-tunes a Video Swin Transformer: `python train.py model=swin_base dataset=ucf101`."""

import os
import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vswin.config.compose import hydra_errors, quote_paths
from vswin.config.help import print_help_if_asked
from vswin.config.load import CONFIG_DIR, ROOT, check_overrides, load_config
from vswin.config.schema import TrainConfig
from vswin.errors import clean_errors, end_on_sigterm

ConfigStore.instance().store("train_schema", TrainConfig)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(composed) -> None:  # type: ignore[no-untyped-def]
    """Trains the composed configuration; the imports wait so that `--help` does not."""
    with clean_errors():
        config = load_config(composed, TrainConfig)
        from vswin.training.run import run_training

        run_training(config, _command())


def _command() -> list[str]:
    """Returns the command line of this run alone, even if `--multirun` starts several."""
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        return sys.orig_argv
    # The processes of a launcher do not know which program was started.
    return [sys.executable, str(ROOT / "train.py"), *HydraConfig.get().overrides.task]


if __name__ == "__main__":
    # Hydra passes errors on instead of printing them.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    end_on_sigterm()
    with clean_errors(), hydra_errors():
        print_help_if_asked(sys.argv[1:], "train")
        check_overrides(sys.argv[1:], TrainConfig)
        sys.argv[1:] = quote_paths(sys.argv[1:], TrainConfig)
        main()
