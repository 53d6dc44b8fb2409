"""The table of published models: what each name stands for, and where its weights are.

published.json has the addresses and accuracies, as the owners' pages and code state them. Nothing here needs
TensorFlow: `vswin models` and `--help` read this module too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vswin.errors import InputError, nearest
from vswin.models.zoo import SIZES, count_parameters


@dataclass(frozen=True)
class Source:
    """Says where one copy of published weights is."""

    name: str  # who offers it, e.g. `official` or `torchvision`
    address: str  # URL of a file, or handle of a TF-Hub model
    dialect: str  # how names and layout differ from the official ones
    sha256_prefix: str = ""  # first digits of the file's hash, if its owner states them
    has_head: bool = True
    top1: float | None = None  # accuracies in percent, if the owner reports other values than the official ones
    top5: float | None = None
    note: str = ""  # what is special about this copy

    @property
    def is_same_model(self) -> bool:
        """Whether this copy has the values of its row: it has the head and was not trained by somebody else."""
        return self.has_head and self.top1 is None

    @property
    def url(self) -> str:
        """Gives the address of the file; a TF-Hub model comes as an archive.

        Source: tensorflow_hub compressed_module_resolver.py, HttpCompressedFileResolver.
        """
        return f"{self.address}?tf-hub-format=compressed" if self._is_handle else self.address

    @property
    def file_name(self) -> str:
        """Gives the name of the file: the last part of its URL, or the TF-Hub model's name with `.tar.gz`."""
        parts = self.address.split("/")
        return f"{parts[-2]}.tar.gz" if self._is_handle else parts[-1]

    def describe(self) -> str:
        """Says how this copy differs from the official one; empty if it does not."""
        accuracy = "" if self.top1 is None else f"{self.top1} % top-1, {self.top5} % top-5"
        parts = (accuracy, "" if self.has_head else "without the head", self.note)
        return "; ".join(part for part in parts if part)

    @property
    def _is_handle(self) -> bool:
        return self.dialect == "tfhub_saved_model"


@dataclass(frozen=True)
class HubPage:
    """The entry of a model on the TF-Hub page, accuracies in percent, and why it differs from the official values."""

    name: str
    pretrained_on: str
    top1: float
    top5: float
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Describes published weights, whose name `init_from` accepts."""

    name: str  # name in the literature
    size: str  # key of `SIZES` that the weights fit; for image models after inflation
    num_classes: int
    dataset: str  # what the weights were trained on
    pretrained_on: str  # what their initial weights were trained on; empty for image models
    parameters: int  # trainable values, head included
    sources: tuple[Source, ...]  # the official copy first
    role: str = ""  # their purpose, if it is not classification

    @property
    def names(self) -> tuple[str, ...]:
        """Lists the names that stand for this row, the one in the literature first."""
        return (self.name,)

    @property
    def is_image_model(self) -> bool:
        """Whether this is a 2D model for images, to be inflated."""
        return self.sources[0].dialect == "image_2d"


@dataclass(frozen=True, kw_only=True)
class PublishedModel(PublishedWeights):
    """Published weights with accuracies measured on `dataset`."""

    top1: float  # accuracies in percent: the official ones, or the owner's if there is no official copy
    top5: float
    test_views: str  # clips x crops per video for those accuracies
    hub_page: HubPage | None  # None for a model that is not on the TF-Hub page

    @property
    def names(self) -> tuple[str, ...]:
        """Lists the names that stand for this row, the one in the literature first."""
        return tuple(dict.fromkeys([self.name, *([self.hub_page.name] if self.hub_page else [])]))


_Row = TypeVar("_Row", bound=PublishedWeights)


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """Reads the table of published models: name, accuracy, protocol, parameters, where the weights are."""
    return tuple(row for row in _read_group("published") if isinstance(row, PublishedModel))


@cache
def all_published() -> tuple[PublishedWeights, ...]:
    """Lists all weights that can be fetched by name.

    These are `published_models`, models that others trained, weights to start a recipe from, and 2D image models.
    """
    return (*published_models(), *_read_group("also"), *_read_group("initial"), *_read_group("image_2d"))


def find_weights(name: str) -> PublishedWeights:
    """Looks up published weights by their name in the literature or on the TF-Hub page.

    Raises:
        InputError: if no weights have that name; the message names the nearest.
    """
    return _find(name, all_published())


def find_published(name: str) -> PublishedModel:
    """Looks up a published model: weights with published accuracies.

    Raises:
        InputError: if no model has that name; the message names the nearest.
    """
    return _find(name, [weights for weights in all_published() if isinstance(weights, PublishedModel)])


def _find(name: str, rows: Sequence[_Row]) -> _Row:
    named = {alias: row for row in rows for alias in row.names}
    if name not in named:
        near = nearest(name, list(named), otherwise="`vswin models` lists them")
        raise InputError(f"no published model is called {name!r}: {near}")
    return named[name]


def _read_group(group: str) -> list[PublishedWeights]:
    """Reads the rows of a group; their keys are our fields, except the `window` of an image model."""
    file = Path(__file__).with_name("published.json")
    rows: list[PublishedWeights] = []
    for name, row in json.loads(file.read_text(encoding="utf-8"))[group].items():
        size = SIZES[row["size"]]
        if window := row.pop("window", None):
            size = replace(size, window_size=(1, window, window), patch_size=(1, 4, 4))
        fields: dict[str, Any] = row | {
            "name": name,
            "parameters": count_parameters(size, row["num_classes"]),
            "sources": tuple(Source(name=owner, **source) for owner, source in row["sources"].items()),
        }
        if "top1" in row:
            page = row["hub_page"]
            rows.append(PublishedModel(**fields | {"hub_page": page and HubPage(**{"name": name, **page})}))
        else:
            rows.append(PublishedWeights(**fields))
    return rows
