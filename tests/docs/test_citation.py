"""`CITATION.cff` agrees with the package."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FIRST_RELEASE = "0.1.0"  # the citation names this version until there is a release


@pytest.fixture
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_is_of_the_newest_release_and_its_licence(citation):
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # required by the format
    # The installed package may be older: a checkout keeps its version until the next installation.
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == (releases[0] if releases else FIRST_RELEASE)
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_citation_refers_to_the_paper_of_the_model(citation):
    (paper,) = citation["references"]
    assert (paper["title"], paper["authors"][0]["family-names"], paper["year"]) == (
        "Video Swin Transformer",
        "Liu",
        2022,
    )
