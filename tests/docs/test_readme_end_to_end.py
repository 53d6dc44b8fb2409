"""Executes the README and the documents of the data sets from beginning to end.

It runs every command that stands alone, then every Python program, unchanged, in order and in one folder, with small
models, short recipes, few videos and no downloads (`conftest.py`). `reader.py` lists the exceptions and their reasons.
"""

import pytest
from documents import DOCUMENTS, ROOT, name, read, standing_alone
from reader import BEFORE, CODES, FILES, FOLLOWED, NOT_EXECUTED, executed


@pytest.mark.slow
@pytest.mark.parametrize("document", [each for each in FOLLOWED if ROOT / "docs" not in each.parents], ids=name)
def test_a_document_can_be_followed(document, reader):
    reader.follow(document)


@pytest.mark.slow
def test_a_command_that_fails_is_noticed(reader, tmp_path):
    steps = reader.run(["vswin predict nowhere.mp4 --model x", "vswin modles", "python train.py modle=x", "exit 3"])
    assert [step.code for step in steps] == [1, 2, 1, 3]
    assert "nowhere.mp4" in steps[0].output
    document = tmp_path / "document.md"
    document.write_text("# A document\n\n    vswin inspect weights.pth\n    vswin inspect nothing.pth\n")
    with pytest.raises(AssertionError, match=r"(?s)\$ vswin inspect nothing.pth\n.*nothing.pth.*\(code 1\)"):
        reader.follow(document)


def test_exceptions_are_those_of_commands_in_the_documents():
    commands = [command for document in DOCUMENTS for command in standing_alone(read(document))]
    assert [start for start in NOT_EXECUTED if not any(command.startswith(start) for command in commands)] == []
    executed_commands = {command for document in FOLLOWED for command in executed(document)}
    assert executed_commands >= {*BEFORE, *CODES}
    assert set(FILES) <= set(FOLLOWED)
    assert len(executed_commands) > 60
