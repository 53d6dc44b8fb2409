"""Names that PyTorch files give to the weights of a Swin Transformer, in official names.

Layouts are official everywhere: Linear [out, in], Conv3d [out, in, t, h, w].
"""

import re
from collections.abc import Mapping

import numpy as np

from vswin.errors import InputError

# What DataParallel, torch.compile and training programs put between a program's names and those of the network.
_WRAPPERS = frozenset(("module", "model", "net", "_orig_mod"))
_LOSS = re.compile(r"(?:.*\.)?(?:criterion|\w*loss\w*)(?:\..*)?|n_averaged")
# Values that follow from the network; files hold them, networks do not load them.
_BUFFER = re.compile(r"(?:.*\.)?(?:relative_position_index|attn_mask)|data_preprocessor\..*")

_TORCHVISION = re.compile(r"features\.(\d+)\.(.+)")
_TORCHVISION_BLOCK = re.compile(r"(\d+)\.(.+)")

_HUGGING_FACE_KEY = re.compile(r"(?:swin\.|backbone\.)?encoder\.layers\.\d+\.blocks\.")
_HUGGING_FACE = {
    r"^(?:swin|backbone)\.": "",
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.norm\.": "patch_embed.norm.",
    r"^encoder\.": "",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.attention\.self\.query\.": ".attn.qkv.",
    r"\.attention\.self\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"^layernorm\.": "norm.",
    r"^classifier\.": "head.",
}
_KEY_OR_VALUE = re.compile(r"(.*\.attention\.self\.)(?:key|value)(\.(?:weight|bias))")


def unwrap(key: str) -> str:
    """Takes out of a name what wrappers put there, wherever and however often."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def is_of_training(key: str) -> bool:
    """Says whether a tensor belongs to a loss, or counts the steps of an average."""
    return _LOSS.fullmatch(key) is not None


def is_hugging_face(key: str) -> bool:
    """Says whether a name is one that Hugging Face gives to a part of its 2D Swin Transformer."""
    return _HUGGING_FACE_KEY.match(key) is not None


def from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names the tensors of Hugging Face's 2D Swin Transformer as Microsoft does; joins queries, keys and values.

    Raises:
        InputError: if a block has not all three, or they do not fit together.
    Source: transformers models/swin/modeling_swin.py and convert_swin_timm_to_pytorch.py.
    """
    renamed = {}
    for key, tensor in tensors.items():
        name = key
        for pattern, replacement in _HUGGING_FACE.items():
            name = re.sub(pattern, replacement, name)
        if ".attention.self.query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            try:
                tensor = np.concatenate([tensors[part] for part in parts])  # [3*C, C] or [3*C]
            except (LookupError, ValueError) as error:
                raise InputError(f"{' and '.join(parts)} do not go together: {error}") from None
        elif _KEY_OR_VALUE.fullmatch(key) and _KEY_OR_VALUE.sub(r"\1query\2", key) in tensors:
            continue
        renamed[name] = tensor
    return renamed


def before_merging(key: str) -> str:
    """Counts a merging to the stage before it; timm, since 0.9, counts it to the one behind it."""
    return re.sub(r"layers\.(\d{1,3})\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", key)


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
    """Says whether a tensor belongs to what an image network was trained for, which no video network can use."""
    return key.startswith(("head.", "cls_head.", "decoder.", "embeddings.mask_token"))
