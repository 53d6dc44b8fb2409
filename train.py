"""Fine-tunes a Video Swin Transformer: `python train.py model=swin_base dataset=ucf101`."""

import sys

import hydra
from hydra.core.config_store import ConfigStore

from vswin.config import CONFIG_DIR, TrainConfig, check_overrides, load_config
from vswin.errors import clean_errors

ConfigStore.instance().store("train_schema", TrainConfig)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(composed) -> None:  # type: ignore[no-untyped-def]
    """Trains the composed configuration; the imports wait so that `--help` does not."""
    with clean_errors():
        from vswin.training.run import run_training

        run_training(load_config(composed, TrainConfig))


if __name__ == "__main__":
    with clean_errors():
        check_overrides(sys.argv[1:], TrainConfig)
    main()
