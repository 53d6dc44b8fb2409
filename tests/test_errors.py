import pytest

from vswin.errors import InputError, clean_errors, nearest


def test_an_input_error_ends_the_program_with_its_text_alone(capsys):
    with pytest.raises(SystemExit) as caught, clean_errors():
        raise InputError("clip.crop=0: at least 1")
    assert caught.value.code == "error: clip.crop=0: at least 1"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "a.h5"), RuntimeError("x: Read-only file system")]
)
def test_a_disk_that_fails_ends_the_program_without_a_traceback(error):
    with pytest.raises(SystemExit) as caught, clean_errors():
        raise error
    assert caught.value.code.startswith(f"error: {error}; ")
    assert caught.value.code.endswith(", then start again")


def test_the_nearest_names_come_first_and_few_choices_are_listed():
    assert nearest("bse", ["base", "tiny"]) == "did you mean 'base'? (choices: base, tiny)"
    assert nearest("xyz", ["base", "tiny"]) == "(choices: base, tiny)"
    assert nearest("name7", [f"name{i}" for i in range(40)]).startswith("did you mean 'name7'")
    assert nearest("zzz", [f"name{i}" for i in range(40)]) == "see --help"


def test_an_error_that_nobody_foresaw_keeps_its_traceback_and_is_called_a_bug_once(capsys):
    with pytest.raises(ZeroDivisionError), clean_errors(), clean_errors():
        1 / 0  # noqa: B018
    assert capsys.readouterr().err.count("makes it a bug; please report it") == 1


def test_whoever_debugs_gets_the_error_itself(monkeypatch):
    monkeypatch.setenv("VSWIN_DEBUG", "1")
    with pytest.raises(InputError), clean_errors():
        raise InputError("clip.crop=0: at least 1")
    with pytest.raises(OSError, match="No space left"), clean_errors():
        raise OSError(28, "No space left on device", "a.h5")


def test_a_broken_pipe_that_is_not_the_output_keeps_its_traceback(capsys):
    with pytest.raises(BrokenPipeError), clean_errors():
        raise BrokenPipeError(32, "Broken pipe")
