"""Layer-wise decay of the learning rate: the nearer to the input, the less a layer is changed."""

import re
from collections.abc import Sequence

_PLACE = re.compile(r"backbone\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.")


def layer_multiplier(name: str, depths: Sequence[int], decay: float) -> float:
    """Computes what the rate of a weight is multiplied by.

    Layer 0 is the patch embedding, layer k + 1 block k counted over all stages, and the topmost layer the last
    normalisation and the head. A patch merging belongs to the block before it.

    Args:
        name: official name, e.g. `backbone.layers.0.blocks.0.attn.qkv.weight`.
        depths: blocks of each stage.
        decay: share of a layer's rate that the layer below it has; 1 for no decay.

    Source: BEiT, get_num_layer_for_vit, as VideoMAE uses it; for stages SimMIM optimizer.py, get_swin_layer.
    """
    top = sum(depths) + 1
    place = _PLACE.match(name)
    if place is not None:
        stage, block = int(place[1]), place[2]
        layer = sum(depths[:stage]) + (depths[stage] if block is None else int(block) + 1)
    else:
        layer = 0 if name.startswith("backbone.patch_embed.") else top
    return decay ** (top - layer)
