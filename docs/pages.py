"""Gives MkDocs its pages: the documents of the repository under their own paths, and the sections of the README.

A hook of mkdocs.yml. Links between documents then work in the site as they do in the repository.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# What the pages are, and the files that they link to or show.
PATTERNS = (
    "[C-S]*.md",
    "LICENSE",
    "docs/**/*",
    "data/*.md",
    "data/*/README.md",
    "benchmarks/peers/README.md",
    "tests/fuzz/**/*.md",
)
# Sections of the README that are pages of their own; the others stay on the first page.
SECTIONS = {
    "training.md": ["Your own videos"],
    "data_sets.md": ["Data sets"],
    "reproduce.md": ["Recipes", "Testing"],
    "predicting.md": ["Predicting"],
    "weights.md": ["Models", "Weights", "In Python"],
    "measured.md": ["What was measured"],
}
TITLES = {
    "training.md": "Settings of a run",
    "reproduce.md": "Reproduce the table",
    "weights.md": "Models, weights, Python",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces what MkDocs found in docs/ by the documents of the whole repository."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = sorted(
        {
            path
            for pattern in PATTERNS
            for path in ROOT.glob(pattern)
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
    )
    names = [str(path.relative_to(ROOT)) for path in paths if path != ROOT / "README.md"]
    documents = [File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in names]
    sections = [File.generated(config, name, content=text) for name, text in split_readme().items()]
    return Files([*theme, *documents, *sections])


def split_readme() -> dict[str, str]:
    """Takes the README apart at its headings.

    Returns:
        The text of each page by its name; README.md is the first page.

    Raises:
        KeyError: if the README has no such section any more.
    """
    start, *parts = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}
    pages = {}
    for page, headings in SECTIONS.items():
        bodies = [(heading, sections.pop(heading)) for heading in headings]
        if len(bodies) == 1:
            pages[page] = f"# {headings[0]}\n{bodies[0][1]}"
        else:
            pages[page] = f"# {TITLES[page]}\n\n" + "".join(f"## {heading}\n{body}" for heading, body in bodies)
    pages["README.md"] = start + "".join(f"## {heading}\n{body}" for heading, body in sections.items())
    return pages


def on_page_markdown(markdown: str, **_: object) -> str:
    """Indents lists inside lists by four spaces: GitHub takes two, Python's Markdown does not."""
    return re.sub(r"^  (?=- )", "    ", markdown, flags=re.MULTILINE)
