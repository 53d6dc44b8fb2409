import pytest

from vswin.wording import count_of


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "epoch", "1 epoch"),
        (0, "video", "0 videos"),
        (3200, "video", "3,200 videos"),
        (8, "class", "8 classes"),
        (0.5, "epoch", "0.5 epochs"),
        (1.0, "epoch", "1 epoch"),
    ],
)
def test_numbers_of_things(number, noun, text):
    assert count_of(number, noun) == text
