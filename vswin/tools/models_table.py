"""The table of `vswin models`: what each published name stands for, and which weights are on this machine."""

import dataclasses
import re
from typing import Any

from rich.text import Text

from vswin.console import Console, say, window_width
from vswin.models.zoo import SIZES, count_macs
from vswin.weights.download import cache_folder, local_copies, local_state
from vswin.weights.published import PublishedModel, PublishedWeights, all_published

_LABELS = {
    "kinetics400": "Kinetics-400",
    "kinetics600": "Kinetics-600",
    "sthv2": "Something-Something v2",
    "imagenet_1k": "ImageNet-1K",
    "imagenet_22k": "ImageNet-22K",
}
_HEADINGS = ("top-1", "top-5", "views", "params", "GMACs")
_ROW = "{:45} {:>5} {:>5} {:>5} {:>7} {:>5}"
_WIDTH = 80
_NOTES = (
    "Accuracies in percent, the official ones (swin_large: those of mmaction2). Views: clips x crops. GMACs: 10^9 "
    "multiply-adds of the backbone on 32x224x224.",
    "Image models are inflated. The official copy is taken, or innat's (same values) where that cannot be had; the "
    "others only if source=NAME asks for them: torchvision and mmaction2 trained weights of their own, tfhub has no "
    "head.",
)


def models_records() -> list[dict[str, Any]]:
    """Lists every published name with all its data, as JSON can hold it.

    Returns:
        For each name its fields; accuracies in percent, `gmacs` of the backbone on a clip of 32 x 224 x 224 (None for
        image models), `hub_page` and each of `sources` as objects, and in `local` the copies on this machine.

    Raises:
        InputError: if VSWIN_WEIGHTS_DIR names no folder, or a folder cannot be read.
    """
    records = []
    for weights in all_published():
        sources = [dataclasses.asdict(source) | {"url": source.url} for source in weights.sources]
        copies = [dataclasses.asdict(copy) | {"path": str(copy.path)} for copy in local_copies(weights.name)]
        more = {"gmacs": _count_gmacs(weights), "sources": sources, "local": copies}
        records.append(dataclasses.asdict(weights) | more)
    return records


def print_models(console: Console | None = None, show_sources: bool = False) -> None:
    """Prints the table of published names, 80 columns wide except for addresses, narrower in a narrower window.

    With `show_sources` it lists every address, with its owner's remarks on the copy.

    Raises:
        InputError: if VSWIN_WEIGHTS_DIR names no folder, or a folder cannot be read.
    """
    # Names and addresses are not wrapped in a pipe.
    console = console or Console(soft_wrap=True)
    for title, headings, are_images in (
        ("video models", _HEADINGS, False),
        ("image models", ("", "", "", "params", ""), True),
    ):
        _print_row(console, title, headings, style="bold")
        for weights in all_published():
            if weights.is_image_model == are_images:
                _print_model(console, weights, show_sources)
        console.print()
    for note in (
        *_NOTES,
        f"Downloads go to {cache_folder()} (VSWIN_CACHE).",
        "Your own files: a folder, or the address of a mirror, in VSWIN_WEIGHTS_DIR.",
    ):
        say(console, note, widest=_WIDTH)


def _print_row(console: Console, name: str, figures: tuple[str, ...], style: str = "") -> None:
    """Prints a name and its figures, in columns if the window has room, else below the name."""
    is_wide = window_width(console) >= _WIDTH
    line = _ROW.format(name, *figures).rstrip() if is_wide else name
    console.print(Text(line, style=style), soft_wrap=True)
    if not is_wide and not style:
        named = [f"{heading} {figure}" for heading, figure in zip(_HEADINGS, figures, strict=True) if figure]
        say(console, ", ".join(named), indent=4)


def _print_model(console: Console, weights: PublishedWeights, show_sources: bool) -> None:
    """Prints the row of a model, and below it the facts that have no column."""
    accuracy = ("", "", "")
    if isinstance(weights, PublishedModel):
        accuracy = (str(weights.top1), str(weights.top5), weights.test_views)
    gmacs, millions = _count_gmacs(weights), f"{weights.parameters / 1e6:.1f} M"
    _print_row(console, weights.name, (*accuracy, millions, "" if gmacs is None else f"{gmacs:.0f}"))
    if weights.is_image_model:
        texts = [f"{_LABELS[weights.dataset]}, for {weights.size}: {local_state(weights.name)}"]
    else:
        texts = [f"{_LABELS[weights.dataset]}, pre-trained on {_LABELS[weights.pretrained_on]}", weights.role]
        texts += [f"TF-Hub page: {difference}" for difference in _hub_differences(weights)]
        texts.append(f"copies: {', '.join(source.name for source in weights.sources)}; {local_state(weights.name)}")
    for text in filter(None, texts):
        say(console, text, style="dim", indent=4, hanging=4)
    for source in weights.sources if show_sources else ():
        remarks = f" ({source.describe()})" if source.describe() else ""
        digest = f" sha256 {source.sha256_prefix}..." if source.sha256_prefix else ""
        # Addresses are not wrapped.
        console.print(Text(f"      {source.name}: {source.url}{remarks}{digest}", style="dim"), soft_wrap=True)


def _hub_differences(weights: PublishedWeights) -> list[str]:
    """Lists the values on the TF-Hub page that differ from the official ones, e.g. "96.6 % top-5"."""
    if not isinstance(weights, PublishedModel) or weights.hub_page is None:
        return []
    page = weights.hub_page
    pairs = ((page.top1, weights.top1, "top-1"), (page.top5, weights.top5, "top-5"))
    differences = [f"{hub} % {name}" for hub, official, name in pairs if hub != official]
    if page.name != weights.name:
        differences.append(f"the name {page.name}")
    # "Kinetics 400" equals "Kinetics-400".
    names = (page.pretrained_on, _LABELS[weights.pretrained_on])
    if len({re.sub(r"[^a-z0-9]", "", name.lower()) for name in names}) > 1:
        differences.append(f"pre-trained on {page.pretrained_on}")
    return differences


def _count_gmacs(weights: PublishedWeights) -> float | None:
    """Counts 10^9 multiply-adds of the backbone on a clip of 32 x 224 x 224; None for image models."""
    return None if weights.is_image_model else round(count_macs(SIZES[weights.size], 32, 224, 224) / 1e9, 1)
