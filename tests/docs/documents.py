"""The documents, and the commands in them."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/peers/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
    *sorted(ROOT.glob("data/*.md")),
    *sorted(ROOT.glob("data/*/README.md")),
]
PROGRAM = (
    r"(?:(?:\S*/)?python (?:train|evaluate|benchmarks/\S+|-m \S+)|vswin |make |sbatch |wandb (?:sweep|agent) "
    r"|pip install |\S+/pip )"
)


def name(document: Path) -> str:
    """Returns a document's path in the checkout."""
    return str(document.relative_to(ROOT))


def read(document: Path) -> str:
    """Reads a document; a notebook's code cells become fenced blocks, and shell commands lose their `!`."""
    text = document.read_text()
    if document.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(
        source if kind == "markdown" else "```\n" + re.sub(r"^!", "", source, flags=re.MULTILINE) + "\n```"
        for kind, source in cells
    )


def standing_alone(text: str) -> list[str]:
    """Lists the commands of all blocks in order, without comments, continued lines or output below a prompt."""
    commands = []
    for fenced, indented in re.findall(r"^```\w*\n(.*?)^```|((?:^    [^\n]*\n)+)", text, re.DOTALL | re.MULTILINE):
        block = "".join(re.findall(r"^\$ .*\n", fenced, re.MULTILINE)) or fenced or indented
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if match := re.match(rf"(?:    |\$ )?({PROGRAM}.*)", line):
                commands.append(re.sub(r"\s{2,}#.*|\s+# on .*", "", match[1]).strip())
    return commands


def python_blocks(text: str) -> list[str]:
    """Lists the Python programs."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def in_text(text: str) -> list[str]:
    """Lists the backtick spans of the running text, which may contain line breaks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
