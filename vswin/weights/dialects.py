"""Translates the dialects in which files name the same weights to official names and layout.

Keys and ranks of the tensors identify a dialect, never the name of the file. Each tensor is mapped to one weight, by
name or, in a SavedModel, by order: a tensor without a weight, or a weight without a tensor, is an error. Ignored
tensors are listed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vswin.console import printable
from vswin.errors import InputError
from vswin.weights.names import HEAD_PREFIX, PATCHES, first_five, official_names, read_depths, recognise
from vswin.weights.names import to_official as to_official_layout

OFFICIAL = "official"
MMACTION2 = "mmaction2"
TORCHVISION = "torchvision"
IMAGE_2D = "image_2d"
INNAT = "innat_h5"
TFHUB = "tfhub_saved_model"
VSWIN_EXPORT = "vswin_saved_model"

# Parts of names that DataParallel, torch.compile and training programs of PyTorch add.
_WRAPPERS = frozenset(("module", "model", "net", "_orig_mod"))
# Tensors of a loss, and the step count of an average.
_LOSS = re.compile(r"(?:.*\.)?(?:criterion|\w*loss\w*)(?:\..*)?|n_averaged")
# Tensors that follow from the network; files hold them, but networks do not load them.
_POSITION_INDEX = re.compile(r"(?:.*\.)?relative_position_index")
_BUFFER = re.compile(r"(?:.*\.)?attn_mask|data_preprocessor\..*")
# States of the optimizer and of random generators of Keras.
_STATE = re.compile(r"optimizer/.*|.*/seed(?:_generator)?/vars/\d+")
# Tensors for the task of an image network, which a video network cannot use.
_IMAGE_HEAD = re.compile(r"(?:head|cls_head|decoder)\..*|embeddings\.mask_token.*")
_IGNORED = (_LOSS, _POSITION_INDEX, _BUFFER, _STATE)

_PATCHES_OF_TORCHVISION = "features.0.0.weight"  # of its image networks
_OFFICIAL_KEY = re.compile(r"(?:backbone\.)?layers\.\d+\.")
_NORM_OF_MMACTION2 = re.compile(r"(?:backbone\.)?norm3\.")
_HUGGING_FACE_KEY = re.compile(r"(?:swin\.|backbone\.)?encoder\.layers\.\d+\.blocks\.")
_KEY_OR_VALUE = re.compile(r"(.*\.attention\.self\.)(?:key|value)(\.(?:weight|bias))")
_BEFORE_BACKBONE = re.compile(r"(.*?)layers/video_swin_(?:patching_and_embedding|basic_layer)[_/]")

# Parts of names -> parts of official names, applied in this order; the prefix `backbone.` may be missing.
_Renaming = dict[str, str | Callable[[re.Match[str]], str]]
_FEATURE = r"^features\.(\d{1,3})\."
# Source: torchvision models/video/swin_transformer.py: `features` has stages at even and mergings at odd indices.
_TORCHVISION: _Renaming = {
    r"^head\.": "cls_head.fc_cls.",
    _FEATURE: lambda found: f"layers.{int(found[1]) // 2}.{'downsample' if int(found[1]) % 2 else 'blocks'}.",
    r"\.mlp\.0\.": ".mlp.fc1.",
    r"\.mlp\.3\.": ".mlp.fc2.",
}
# Source: torchvision models/swin_transformer.py: the patch embedding is the first feature, before the stages.
_TORCHVISION_2D: _Renaming = {
    r"^features\.0\.0\.": "patch_embed.proj.",
    r"^features\.0\.2\.": "patch_embed.norm.",
    **_TORCHVISION,
    _FEATURE: lambda found: f"layers.{(int(found[1]) - 1) // 2}.{'blocks' if int(found[1]) % 2 else 'downsample'}.",
}
# Source: mmaction2 mmaction/models/backbones/swin.py, SwinTransformer3D: one norm per output stage.
_MMACTION2: _Renaming = {r"^(?:backbone\.)?norm3\.": "norm."}
# timm, since 0.9, names a merging as part of the stage after it.
_LATE_MERGING: _Renaming = {r"layers\.(\d{1,3})\.downsample\.": lambda found: f"layers.{int(found[1]) - 1}.downsample."}
# Source: transformers models/swin/modeling_swin.py and convert_swin_timm_to_pytorch.py.
_HUGGING_FACE: _Renaming = {
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
# Paths of data sets in a Keras 3 `.weights.h5`, below the backbone. Layers of one class are numbered in the order of
# creation: norm1 before norm2, qkv before proj. Source: innat/VideoSwin v2, videoswin/{backbone,model}.py; keras
# saving/saving_lib.py forms the paths.
_INNAT: _Renaming = {
    r"^layers/dense/": "cls_head.fc_cls/",
    r"^layers/layer_normalization/": "norm/",
    r"^layers/video_swin_patching_and_embedding/layers/conv3d/": "patch_embed.proj/",
    r"^layers/video_swin_patching_and_embedding/layers/layer_normalization/": "patch_embed.norm/",
    r"^layers/video_swin_basic_layer(?:_(\d{1,3}))?/": lambda found: f"layers.{found[1] or 0}.",
    r"\.downsample/": ".downsample.",
    r"\.blocks/video_swin_transformer_block(?:_(\d{1,3}))?/": lambda found: f".blocks.{found[1] or 0}.",
    r"\.layers/layer_normalization/": ".norm1/",
    r"\.layers/layer_normalization_1/": ".norm2/",
    r"\.layers/mlp/": ".mlp.",
    r"\.attn/layers/dense/": ".attn.qkv/",
    r"\.attn/layers/dense_1/": ".attn.proj/",
    r"\.attn/vars/0$": ".attn.relative_position_bias_table",
    r"/vars/0$": ".weight",
    r"/vars/1$": ".bias",
}
_RENAMINGS = {MMACTION2: _MMACTION2, TORCHVISION: _TORCHVISION, INNAT: _INNAT}


@dataclass(frozen=True)
class Translation:
    """Weights under official names and in official layout; an image network has no time axis and no head.

    `ignored` names the tensors of the file that are not used: buffers that follow from the network, states of training,
    the head of an image network. The first `relative_position_index` of the file, int [N, N], decides the window.
    """

    dialect: str
    tensors: dict[str, np.ndarray]
    ignored: tuple[str, ...] = ()
    position_index: np.ndarray | None = field(default=None, repr=False)


def to_official(tensors: Mapping[str, np.ndarray]) -> Translation:
    """Translates the tensors of a file, by name (in an HDF5 file by path of the data set), to one whole network.

    Transposed tensors are views. Only the queries, keys and values of Hugging Face are copied, to join them.

    Raises:
        InputError: if no dialect is recognised, or the tensors do not form one whole network.
    """
    unwrapped: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in unwrapped:
            raise InputError(f"{key} and another tensor are both {name}; files of two kinds were mixed")
        unwrapped[name] = tensor
    tensors = unwrapped
    if any(map(_HUGGING_FACE_KEY.match, tensors)):
        tensors = _from_hugging_face(tensors)

    dialect = _find_dialect(tensors)
    renaming, prefix = _RENAMINGS.get(dialect, {}), ""
    ignored_names = (*_IGNORED, _IMAGE_HEAD) if dialect == IMAGE_2D else _IGNORED
    if dialect == INNAT:  # the path before the layers of the backbone is empty in a file of the backbone alone
        prefix = next((match[1] for match in map(_BEFORE_BACKBONE.match, tensors) if match), "")
    elif _PATCHES_OF_TORCHVISION in tensors:
        renaming = _TORCHVISION_2D
    elif dialect == IMAGE_2D and not any("layers.0.downsample." in key for key in tensors):
        renaming = _LATE_MERGING

    translated: dict[str, np.ndarray] = {}
    given_as: dict[str, str] = {}
    ignored = []
    for key, tensor in tensors.items():
        if any(pattern.fullmatch(key) for pattern in ignored_names):
            ignored.append(key)
            continue
        official = _rename(key.removeprefix(prefix), renaming)
        if not official.startswith(("backbone.", "cls_head.")):
            official = f"backbone.{official}"
        if official in given_as:
            raise InputError(f"{given_as[official]} and {key} are both {official}; files of two kinds were mixed")
        given_as[official] = key
        translated[official] = to_official_layout(official, tensor) if dialect == INNAT else tensor
    _check_names(dialect, given_as)
    # Tensors of a loss come first: few files have them.
    ignored.sort(key=lambda key: _LOSS.fullmatch(key) is None)
    index = next((tensors[key] for key in ignored if _POSITION_INDEX.fullmatch(key)), None)
    recognise(translated)
    return Translation(dialect, translated, tuple(ignored), index)


def _rename(name: str, renaming: _Renaming) -> str:
    for pattern, replacement in renaming.items():
        name = re.sub(pattern, replacement, name)
    return name


def saved_model_to_official(variables: Sequence[tuple[str, np.ndarray]]) -> Translation:
    """Translates the variables of a SavedModel, (name, values) in its order, to one whole network.

    A SavedModel of the TF-Hub collection has no head; our exports have one.

    Raises:
        InputError: if the variables do not have the order or the shapes of such a network.
    """
    if variables and all(name.startswith(("backbone.", HEAD_PREFIX)) for name, _ in variables):
        named = {name: to_official_layout(name, array) for name, array in variables}
        _check_names(VSWIN_EXPORT, {name: name for name in named})
        recognise(named)
        return Translation(VSWIN_EXPORT, named)
    indices = [(name, array) for name, array in variables if _is_position_index(array)]
    try:
        tensors = _translate_in_order([(name, array) for name, array in variables if not _is_position_index(array)])
        recognise(tensors)
    except InputError as error:
        raise InputError(f"the SavedModel is none that the TF-Hub port saves: {error}") from None
    return Translation(TFHUB, tensors, tuple(name for name, _ in indices), indices[0][1] if indices else None)


def _is_position_index(array: np.ndarray) -> bool:
    """Recognises a `relative_position_index`: the TF-Hub port gives it no name, but no other variable has integers."""
    return array.dtype.kind in "iu" and array.ndim == 2 and array.shape[0] == array.shape[1]


def _find_dialect(tensors: Mapping[str, np.ndarray]) -> str:
    """Recognises a dialect by keys that only it has."""
    found = []
    if any(key.startswith("features.") for key in tensors):
        found.append(IMAGE_2D if _PATCHES_OF_TORCHVISION in tensors else TORCHVISION)
    if any("/vars/" in key for key in tensors):
        found.append(INNAT)
    if any(map(_OFFICIAL_KEY.match, tensors)):
        patches = tensors.get(PATCHES, tensors.get(PATCHES.removeprefix("backbone.")))
        is_mmaction2 = any(map(_NORM_OF_MMACTION2.match, tensors))
        is_2d = patches is not None and np.ndim(patches) == 4
        found.append(IMAGE_2D if is_2d else MMACTION2 if is_mmaction2 else OFFICIAL)
    if len(found) == 1:
        return found[0]
    first = ", ".join(map(printable, list(tensors)[:5])) or "none"
    if found:
        raise InputError(f"the tensors are named as in {' and '.join(found)} at once; the first are {first}")
    tried = ", ".join((OFFICIAL, MMACTION2, TORCHVISION, IMAGE_2D, INNAT))
    raise InputError(f"the tensors are named as in none of {tried}; the first of {len(tensors)} are {first}")


def _check_names(dialect: str, given_as: Mapping[str, str]) -> None:
    """Checks that each weight of the network is there once, and nothing else."""
    has_head = any(name.startswith(HEAD_PREFIX) for name in given_as)
    wanted = dict.fromkeys(official_names(read_depths(given_as), has_head))
    problems = [f"{name} is missing" for name in wanted if name not in given_as]
    problems += [f"{key} is unknown" for name, key in given_as.items() if name not in wanted]
    if problems:
        raise InputError(
            f"the tensors are named as in {dialect}, but are no whole network of it: {first_five(problems)}"
        )


def _from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the tensors of Hugging Face's 2D Swin Transformer as Microsoft does; joins queries, keys and values."""
    renamed = {}
    for key, tensor in tensors.items():
        if ".attention.self.query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            try:
                tensor = np.concatenate([tensors[part] for part in parts])  # [3*C, C] or [3*C]
            except (LookupError, ValueError) as error:
                raise InputError(f"{' and '.join(parts)} do not go together: {error}") from None
        elif _KEY_OR_VALUE.fullmatch(key) and _KEY_OR_VALUE.sub(r"\1query\2", key) in tensors:
            continue
        renamed[_rename(key, _HUGGING_FACE)] = tensor
    return renamed


def _translate_in_order(variables: Sequence[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Names the variables of a TF-Hub SavedModel by their order, which is the official one without position indices."""
    # Keras numbers layers across the whole network, so names say little: the same `dense_9` is the qkv of another block
    # in a network of another depth. Still, each name must end as its position requires, and numbers must not fall.
    # Source: GSOC-22-Video-Swin-Transformers convert.py and VideoSwinTransformer/*.py.

    # A block begins with a norm, a merging with a kernel: so the ranks tell how many blocks each stage has.
    smallest = official_names((1, 1), has_head=False)
    block_names = [name for name in smallest if ".layers.0.blocks." in name]
    merging_names = [name for name in smallest if ".downsample." in name]
    names, last = smallest[: smallest.index(block_names[0])], smallest[-2:]
    stage = block = 0
    while len(names) < len(variables) - len(last):
        if variables[len(names)][1].ndim == 1:
            names += [name.replace("layers.0.blocks.0", f"layers.{stage}.blocks.{block}") for name in block_names]
            block += 1
        else:
            names += [name.replace("layers.0", f"layers.{stage}") for name in merging_names]
            stage, block = stage + 1, 0
    names += last

    numbers: dict[str, int] = {}
    for i, (official, (name, array)) in enumerate(zip(names, variables, strict=False)):
        *_, module, kind = official.split(".")
        leaf = {"weight": "gamma", "bias": "beta"} if module.startswith("norm") else {"weight": "kernel"}
        *layers, given = name.removesuffix(":0").split("/")
        where = f"variable {i + 1}, {name} {array.shape},"
        if given != leaf.get(kind, kind):
            raise InputError(f"{where} should be {official}, a {leaf.get(kind, kind)}")
        for layer in layers:
            # dense_9 is dense, 9; the first layer of a class has no number.
            class_name, _, number = layer.rpartition("_")
            if not class_name or not number.isdecimal():
                class_name, number = layer, "0"
            if int(number) < numbers.get(class_name, 0):
                raise InputError(f"{where} stands after one of {class_name}_{numbers[class_name]}")
            numbers[class_name] = int(number)
    if len(variables) < len(names):
        raise InputError(f"it ends after {len(variables)} variables, before {names[len(variables)]}")
    return {name: to_official_layout(name, array) for name, (_, array) in zip(names, variables, strict=True)}
