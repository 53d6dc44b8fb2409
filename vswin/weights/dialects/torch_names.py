"""Names that PyTorch files give to the weights of a Swin Transformer, in official names.

Layouts are official everywhere: Linear [out, in], Conv3d [out, in, t, h, w].
"""

import re

# Values that follow from the network; files hold them, networks do not load them.
_BUFFER = re.compile(r"(?:.*\.)?(?:relative_position_index|attn_mask)|data_preprocessor\..*")

_TORCHVISION = re.compile(r"features\.(\d+)\.(.+)")
_TORCHVISION_BLOCK = re.compile(r"(\d+)\.(.+)")


def is_buffer(key: str) -> bool:
    """Says whether a tensor is passed over: what it holds follows from the network."""
    return _BUFFER.fullmatch(key) is not None


def from_official(key: str) -> str:
    """Gives the official name of an official name, which the backbone alone has without `backbone.`."""
    return key if key.startswith(("backbone.", "cls_head.")) else f"backbone.{key}"


def from_mmaction2(key: str) -> str:
    """Gives the official name of a name of mmaction2 1.x.

    Source: mmaction2 mmaction/models/backbones/swin.py, SwinTransformer3D: one norm per output stage.
    """
    return re.sub(r"^backbone\.norm3\.", "backbone.norm.", from_official(key))


def from_torchvision(key: str) -> str | None:
    """Gives the official name of a name of torchvision's swin3d_t, _s and _b, None for others.

    Source: torchvision models/video/swin_transformer.py: `features` holds stages at even and mergings at odd numbers.
    """
    if key.startswith("head."):
        return f"cls_head.fc_cls.{key.removeprefix('head.')}"
    if key.startswith(("patch_embed.", "norm.")):
        return f"backbone.{key}"
    feature = _TORCHVISION.fullmatch(key)
    if feature is None:
        return None
    stage, is_merging = divmod(int(feature[1]), 2)
    if is_merging:
        return f"backbone.layers.{stage}.downsample.{feature[2]}"
    block = _TORCHVISION_BLOCK.fullmatch(feature[2])
    if block is None:
        return None
    rest = re.sub(r"^mlp\.3\.", "mlp.fc2.", re.sub(r"^mlp\.0\.", "mlp.fc1.", block[2]))
    return f"backbone.layers.{stage}.blocks.{block[1]}.{rest}"


def is_image_head(key: str) -> bool:
    """Says whether a tensor belongs to the classifier of an image network, which no video network can use."""
    return key.startswith(("head.", "cls_head."))
