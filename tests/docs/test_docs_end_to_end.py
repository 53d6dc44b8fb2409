"""Executes the documents in docs/, with one model card, in a file of its own so that two files run side by side."""

import pytest
from documents import ROOT, name
from reader import FOLLOWED

# The other cards have the same commands with other names; tests/docs/test_commands.py composes them.
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
