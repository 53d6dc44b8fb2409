"""Makes the published models small and the built-in data set short, in every Python that has this folder on its path.

Python imports this module by itself when it starts. Windows, names and clips stay as they are: a small model goes the
way of the large one, with fewer blocks, channels and tokens. Configurations come from the folder DOCUMENT_CONFIGS.
"""

import os
from dataclasses import replace
from pathlib import Path

from vswin import config, zoo
from vswin.data import motion


def _shrink(size: zoo.ModelSize) -> zoo.ModelSize:
    """Takes a sixteenth of the channels and of the tokens; sizes that differed in their depths still do."""
    depths = (2, 1, 2 if size.depths[2] > 6 else 1, 1)
    return replace(size, embed_dim=size.embed_dim // 16, depths=depths, num_heads=(1, 1, 2, 2), patch_size=(2, 16, 16))


zoo.SIZES.update({name: _shrink(size) for name, size in zoo.SIZES.items() if name != "swin_micro"})
motion.MotionPlan.__init__.__defaults__ = (1, 0, 4, 1)  # version and seed as they are, then videos per class
config.CONFIG_DIR = Path(os.environ["DOCUMENT_CONFIGS"])
