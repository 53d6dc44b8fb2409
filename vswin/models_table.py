"""The table of `vswin models`: what each published name stands for and whether its weights are here."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from vswin.console import Console
from vswin.published import PublishedModel, PublishedWeights, Source, all_published
from vswin.tables import say, window_width
from vswin.weights.download import cache_folder, local_copies, local_state
from vswin.zoo import SIZES, count_macs

_LABELS = {
    "kinetics400": "Kinetics-400",
    "kinetics600": "Kinetics-600",
    "sthv2": "Something-Something v2",
    "imagenet_1k": "ImageNet-1K",
    "imagenet_22k": "ImageNet-22K",
}
_HEADINGS = ("top-1", "top-5", "views", "params", "GMACs")
_WIDTH = 80
_NAME_WIDTH = 45
_INDENT = 4


def models_records() -> list[dict[str, Any]]:
    """Lists every published name with all that is known, as JSON can hold it.

    Returns:
        For each name its fields; accuracies in percent, `gmacs` of the backbone on a clip of 32 x 224 x 224 (None for
        image models), `hub_page` and each of `sources` as objects, and in `local` the copies that are here.

    Raises:
        InputError: if VSWIN_WEIGHTS_DIR names no folder, or a folder cannot be read.
    """
    return [_make_record(weights) for weights in all_published()]


def print_models(console: Console | None = None, show_sources: bool = False) -> None:
    """Prints the table of published names, 80 columns wide but for addresses; less in a narrower window.

    Args:
        console: where to; None for standard output.
        show_sources: whether every address is listed, with what its owner says of the copy.

    Raises:
        InputError: if VSWIN_WEIGHTS_DIR names no folder, or a folder cannot be read.
    """
    # A pipe wants names and addresses whole.
    console = console or Console(soft_wrap=True)
    videos = [weights for weights in all_published() if not weights.is_image_model]
    images = [weights for weights in all_published() if weights.is_image_model]
    _print_row(console, ("video models", *_HEADINGS), is_heading=True)
    for weights in videos:
        _print_row(console, _video_row(weights))
        _print_below(console, weights, _describe(weights), show_sources)
    console.print()
    _print_row(console, ("image models", "", "", "", "params", ""), is_heading=True)
    for weights in images:
        _print_row(console, (weights.name, "", "", "", _millions(weights), ""))
        text = f"{_LABELS[weights.dataset]}, for {weights.size}: {local_state(weights.name)}"
        _print_below(console, weights, [text], show_sources)
    console.print()
    for note in _notes():
        say(console, note, widest=_WIDTH)


def _make_record(weights: PublishedWeights) -> dict[str, Any]:
    """Gives all that is known of a name."""
    sources = [dataclasses.asdict(source) | {"url": source.url} for source in weights.sources]
    copies = [dataclasses.asdict(copy) | {"path": str(copy.path)} for copy in local_copies(weights.name)]
    return dataclasses.asdict(weights) | {"gmacs": _count_gmacs(weights), "sources": sources, "local": copies}


def _print_row(console: Console, cells: Sequence[str], is_heading: bool = False) -> None:
    """Prints a name and its figures, in columns where they have room, else below it."""
    name, *figures = cells
    style = "bold" if is_heading else ""
    if window_width(console) >= _WIDTH:
        top1, top5, views, parameters, gmacs = figures
        line = f"{name:{_NAME_WIDTH}} {top1:>5} {top5:>5} {views:>5} {parameters:>7} {gmacs:>5}".rstrip()
        console.print(Text(line, style=style), soft_wrap=True)
        return
    console.print(Text(name, style=style), soft_wrap=True)
    if not is_heading:
        named = [f"{heading} {figure}" if figure else "" for heading, figure in zip(_HEADINGS, figures, strict=True)]
        for part in (named[:3], named[3:]):  # what it reaches, and what it costs
            say(console, ", ".join(filter(None, part)), indent=_INDENT)


def _print_below(console: Console, weights: PublishedWeights, texts: Sequence[str], show_sources: bool) -> None:
    """Prints what belongs to a name."""
    for text in texts:
        say(console, text, style="dim", indent=_INDENT, hanging=_INDENT)
    if show_sources:
        for source in weights.sources:
            # An address is not broken.
            text = f"{source.name}: {source.url}{_remarks(source)}"
            console.print(Text(f"{' ' * (_INDENT + 2)}{text}", style="dim"), soft_wrap=True)


def _video_row(weights: PublishedWeights) -> Sequence[str]:
    """Gives the name of a video model and its figures."""
    accuracy = ("", "", "")
    if isinstance(weights, PublishedModel):
        accuracy = (str(weights.top1), str(weights.top5), weights.test_views)
    return weights.name, *accuracy, _millions(weights), f"{_count_gmacs(weights):.0f}"


def _describe(weights: PublishedWeights) -> list[str]:
    """Says below a video model what the columns do not."""
    lines = [f"{_LABELS[weights.dataset]}, pre-trained on {_LABELS[weights.pretrained_on]}"]
    if weights.role:
        lines.append(weights.role)
    if isinstance(weights, PublishedModel):
        lines += [f"TF-Hub page: {difference}" for difference in _hub_differences(weights)]
    return [*lines, f"copies: {', '.join(source.name for source in weights.sources)}; {local_state(weights.name)}"]


def _hub_differences(model: PublishedModel) -> list[str]:
    """Lists what the TF-Hub page gives differently, e.g. "96.6 % top-5"."""
    page = model.hub_page
    if page is None:
        return []
    pairs = ((page.top1, model.top1, "top-1"), (page.top5, model.top5, "top-5"))
    differences = [f"{hub} % {name}" for hub, official, name in pairs if hub != official]
    if page.name != model.name:
        differences.append(f"the name {page.name}")
    if _letters(page.pretrained_on) != _letters(_LABELS[model.pretrained_on]):
        differences.append(f"pre-trained on {page.pretrained_on}")
    return differences


def _letters(text: str) -> str:
    """Leaves out what spellings differ in, e.g. "Kinetics 400" and "Kinetics-400"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _remarks(source: Source) -> str:
    """Says in parentheses what is special about a copy."""
    remarks = f" ({source.describe()})" if source.describe() else ""
    return remarks + (f" sha256 {source.sha256_prefix}..." if source.sha256_prefix else "")


def _notes() -> list[str]:
    """Explains the columns, a paragraph each."""
    return [
        "Accuracies in percent, the official ones (swin_large: those of mmaction2). "
        "Views: clips x crops. GMACs: 10^9 multiply-adds of the backbone on 32x224x224.",
        "Image models are inflated. The official copy is taken, or innat's (same values) "
        "where that cannot be had; the others only if source=NAME asks for them: "
        "torchvision and mmaction2 trained weights of their own, tfhub has no head.",
        f"Downloads go to {cache_folder()} (VSWIN_CACHE).",
        "Your own files: a folder, or the address of a mirror, in VSWIN_WEIGHTS_DIR.",
    ]


def _millions(weights: PublishedWeights) -> str:
    return f"{weights.parameters / 1e6:.1f} M"


def _count_gmacs(weights: PublishedWeights) -> float | None:
    """Counts 10^9 multiply-adds of the backbone on a clip of 32 x 224 x 224; None for image models."""
    return None if weights.is_image_model else round(count_macs(SIZES[weights.size], 32, 224, 224) / 1e9, 1)
