"""Makes the published models small and the built-in data set short, in every Python with this folder on its path.

Python imports this module when it starts. Windows, names and clips stay; small models run the code of the large ones,
with fewer blocks, channels and tokens. Configurations come from the folder DOCUMENT_CONFIGS.
"""

import os
from dataclasses import replace
from pathlib import Path

from vswin.config import load
from vswin.data import motion
from vswin.models import zoo


def _shrink(size: zoo.ModelSize) -> zoo.ModelSize:
    """Divides channels and tokens by sixteen; sizes with different depths still differ."""
    depths = (1, 1, 2 if size.depths[2] > 6 else 1, 1)
    return replace(size, embed_dim=size.embed_dim // 16, depths=depths, num_heads=(1, 1, 2, 2), patch_size=(2, 16, 16))


zoo.SIZES.update({name: _shrink(size) for name, size in zoo.SIZES.items() if name != "swin_micro"})
zoo.SIZES["swin_micro"] = replace(zoo.SIZES["swin_micro"], depths=(1, 1, 1, 1))
motion.MotionPlan.__init__.__defaults__ = (1, 0, 4, 1)  # the default version and seed, then videos per class
load.CONFIG_DIR = Path(os.environ["DOCUMENT_CONFIGS"])
