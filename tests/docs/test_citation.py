"""`CITATION.cff` says what the package says of itself."""

from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import vswin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_is_of_this_version_and_licence(citation):
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # what the format requires
    current = Version(vswin.__version__)
    # Of the newest release, which a version from between two of them is later than, or before the first one.
    assert Version(citation["version"]) <= Version(current.base_version)
    assert current.is_devrelease or Version(citation["version"]) == current
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_citation_refers_to_the_paper_of_the_model(citation):
    (paper,) = citation["references"]
    assert (paper["title"], paper["authors"][0]["family-names"], paper["year"]) == (
        "Video Swin Transformer",
        "Liu",
        2022,
    )
