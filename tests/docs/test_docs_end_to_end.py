"""The documents in docs/, the model cards among them, are executed from beginning to end as their readers would do it.

tests/docs/test_readme_end_to_end.py says how, and has the other documents; two files run side by side.
"""

import pytest
from documents import ROOT, name
from reader import FOLLOWED

DOCUMENTS = [document for document in FOLLOWED if ROOT / "docs" in document.parents]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_can_be_followed(document, reader):
    reader.follow(document)
