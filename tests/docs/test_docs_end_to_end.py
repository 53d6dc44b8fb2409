"""The documents in docs/ are executed from beginning to end as their readers would do it, one model card among them.

tests/docs/test_readme_end_to_end.py says how, and has the other documents; two files run side by side.
"""

import pytest
from documents import ROOT, name
from reader import FOLLOWED

# The other cards have the same commands with other names, which tests/docs/test_commands.py has composed.
CARD = "swin_base_patch244_window1677_sthv2"
DOCUMENTS = [
    document
    for document in FOLLOWED
    if ROOT / "docs" in document.parents and (document.parent.name != "models" or document.stem == CARD)
]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_can_be_followed(document, reader):
    reader.follow(document)
