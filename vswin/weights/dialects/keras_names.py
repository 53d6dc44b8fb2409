"""Names that Keras files give to the weights of a Video Swin Transformer, in official names."""

import re
from collections.abc import Iterable

# innat: the layers of a file, below the backbone. Two layers of one class are numbered as they were made: norm1
# before norm2, qkv before proj.
_PATCHING = "layers/video_swin_patching_and_embedding/"
_BACKBONE = {
    f"{_PATCHING}layers/conv3d": "patch_embed.proj",
    f"{_PATCHING}layers/layer_normalization": "patch_embed.norm",
    "layers/layer_normalization": "norm",
}
_BLOCK = {
    "layers/layer_normalization": "norm1",
    "attn/layers/dense": "attn.qkv",
    "attn/layers/dense_1": "attn.proj",
    "layers/layer_normalization_1": "norm2",
    "layers/mlp/fc1": "mlp.fc1",
    "layers/mlp/fc2": "mlp.fc2",
}
_MERGING = {"downsample/norm": "downsample.norm", "downsample/reduction": "downsample.reduction"}
_IN_BACKBONE = re.compile(r"(.*?)layers/video_swin_(?:patching_and_embedding|basic_layer)[_/]")
_STAGE_PATH = re.compile(r"layers/video_swin_basic_layer(?:_([1-9]\d*))?/(.+)")
_BLOCK_PATH = re.compile(r"blocks/video_swin_transformer_block(?:_([1-9]\d*))?/(.+)")
_VARIABLE = re.compile(r"(.+)/vars/([01])")
_STATE = re.compile(r"optimizer/.*|.*/seed(?:_generator)?/vars/\d+")


def is_training_state(path: str) -> bool:
    """Says whether a data set is passed over: the optimizer's, or that of a random generator."""
    return _STATE.fullmatch(path) is not None


def innat_prefix(paths: Iterable[str]) -> str:
    """Finds what stands before the layers of the backbone: nothing in a file of the backbone alone."""
    return next((match[1] for match in map(_IN_BACKBONE.match, paths) if match), "")


def from_innat(path: str, prefix: str) -> str | None:
    """Gives the official name of a data set of a Keras 3 `.weights.h5`, None for others.

    Source: innat/VideoSwin v2, videoswin/{backbone,model}.py; keras saving/saving_lib.py forms the paths.
    """
    variable = _VARIABLE.fullmatch(path)
    if variable is None:
        return None
    kind = ("weight", "bias")[int(variable[2])]
    if prefix and variable[1] == "layers/dense":
        return f"cls_head.fc_cls.{kind}"
    if not variable[1].startswith(prefix):
        return None
    module = variable[1].removeprefix(prefix)
    if module in _BACKBONE:
        return f"backbone.{_BACKBONE[module]}.{kind}"
    stage = _STAGE_PATH.fullmatch(module)
    if stage is None:
        return None
    layer = f"backbone.layers.{stage[1] or 0}"
    if stage[2] in _MERGING:
        return f"{layer}.{_MERGING[stage[2]]}.{kind}"
    block = _BLOCK_PATH.fullmatch(stage[2])
    if block is None:
        return None
    if block[2] == "attn" and kind == "weight":
        return f"{layer}.blocks.{block[1] or 0}.attn.relative_position_bias_table"
    return f"{layer}.blocks.{block[1] or 0}.{_BLOCK[block[2]]}.{kind}" if block[2] in _BLOCK else None
