"""The documentation as a site: it builds without a warning, is complete, and loads nothing from other servers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Without `--quiet`, since only logged warnings count.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr  # `make install` brings the module mkdocs
    return folder


def test_every_document_is_a_page(site):
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    pages = [str(path.parent / "index" if path.stem == "README" else path.with_suffix("")) for path in documents]
    assert len(pages) > 8
    assert [page for page in pages if not (site / "docs" / f"{page}.html").is_file()] == []
    assert (site / "docs" / "cluster" / "train.sbatch").read_bytes() == (
        ROOT / "docs/cluster/train.sbatch"
    ).read_bytes()
    assert list(site.rglob("*.py*")) == []


def test_every_section_of_the_readme_is_in_the_site_once(site):
    headings = re.findall(r"^## (.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    pages = [path.read_text() for path in site.glob("*.html") if path.stem not in ("404", "search", "CHANGELOG")]
    for heading in headings:
        as_heading = sum(bool(re.search(rf"<h[12] id=[^>]*>{re.escape(heading)}<", page)) for page in pages)
        assert as_heading == 1, heading


def test_nothing_is_loaded_from_other_servers(site):
    loaded = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*href=["']?(?:https?:)?//"""
    )
    found = [
        path.name
        for path in site.rglob("*.html")
        if loaded.search(re.sub(r'<link rel="canonical"[^>]*>', "", path.read_text()))
    ]
    styles = [
        path.name for path in site.rglob("*.css") if re.search(r"url\(['\"]?(?:https?:)?//|@import", path.read_text())
    ]
    assert found + styles == []


def test_lists_in_lists_and_tables_come_out(site):
    formats = (site / "data" / "index.html").read_text()
    assert re.search(r"<li>[^<]*(?:<(?!/li)[^>]*>[^<]*)*<ul>\s*<li>", formats)
    assert (site / "docs" / "models" / "index.html").read_text().count("<tr>") == 7
