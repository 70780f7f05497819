"""FILE.py[:function]: what a user can get wrong, and the words that say so."""

import re

import pytest

from chainrule.errors import SetupError
from chainrule.setup_file import is_file_target, load_loss, load_setup, located, split_target
from chainrule.setups import Setup

GOOD = """
import chainrule as cr
def setup():
    return cr.Setup(model=None, loss=None, batches=[])
def build():
    return cr.Setup(model="built", loss=None, batches=[])
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def write(code, name="given_by_user.py"):
        (tmp_path / name).write_text(code, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_the_function_setup_is_called_unless_another_is_named(write):
    file = write(GOOD)

    assert Setup(None, None, []) == load_setup(file)
    assert "built" == load_setup(f"{file}:build").model


def test_a_file_may_import_its_neighbours(write):
    write("WIDTH = 3", "a_neighbour_of_the_setup.py")
    file = write("from a_neighbour_of_the_setup import WIDTH\n" + GOOD.replace("model=None", "model=WIDTH"))

    assert 3 == load_setup(file).model


def test_a_colon_belongs_to_the_function_only():
    with pytest.raises(SetupError, match=r"no file 'missing.py'; expected FILE.py or FILE.py:function"):
        split_target("missing.py:build")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def setups(): ...", "has no function 'setup'; did you mean given_by_user.py:setups?"),
        (
            "x = 1",
            "has no function 'setup'; write `def setup():` that returns a chainrule.Setup; for a script that trains: chainrule",
        ),
        ("setup = 3", "given_by_user.py:setup is int, expected a function that returns a chainrule.Setup"),
        ("def setup(): return 3", "given_by_user.py:setup() returned int, expected a chainrule.Setup"),
        ("def setup(n): ...", "setup() raised TypeError: setup() missing 1 required positional argument: 'n'"),
        ("def setup(): return {}['width']", "given_by_user.py:setup() raised KeyError: 'width'"),
        (
            "import a_module_that_is_not_there\ndef setup(): ...",
            "raised ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
        ),
        ("import sys\nsys.exit('bye')\ndef setup(): ...", "given_by_user.py raised SystemExit: bye"),
        ("def setup(:", "given_by_user.py raised SyntaxError: "),
    ],
)
def test_what_is_wrong_with_the_file_is_said(code, words, write):
    with pytest.raises(SetupError, match=re.escape(words)):
        load_setup(write(code))


def test_a_script_without_the_function_is_not_run(write, capsys):
    script = write(
        "import argparse\nargparse.ArgumentParser().parse_args(['--no-such-flag'])\nprint('trains')", "train.py"
    )
    with pytest.raises(SetupError) as raised:
        load_setup(script)

    write_it = "write `def setup():` that returns a chainrule.Setup"
    assert f"train.py has no function 'setup'; {write_it}; for a script that trains: chainrule run {script}" == str(
        raised.value
    )
    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize(
    "code",
    [
        GOOD.replace("def setup", "def build_it") + "\nsetup = build_it",
        "from a_neighbour_that_has_one import *",
        "from a_neighbour_that_has_one import other as setup",
        GOOD.replace("def setup", "def build_it") + "\nglobals()['setup'] = build_it",
    ],
)
def test_a_function_may_come_from_anywhere(code, write):
    write(GOOD + "\nother = setup", "a_neighbour_that_has_one.py")

    assert isinstance(load_setup(write(code)), Setup)


def test_a_file_that_ends_the_program_while_it_is_loaded_is_told_what_takes_scripts(write):
    script = write("import sys\ndef setup(): ...\nsys.exit(2)", "train.py")
    with pytest.raises(SetupError) as raised:
        load_setup(script)

    assert str(raised.value).endswith(
        "line 3, in <module>\n    sys.exit(2)\nit ended the program while it was loaded. Put what a script does under "
        f'`if __name__ == "__main__":`; for a script that trains: chainrule run {script}'
    )


def test_an_error_in_the_users_code_names_the_users_line_and_no_line_of_ours(write):
    with pytest.raises(SetupError) as raised:
        load_setup(write("def width():\n    return 1 / 0\n\ndef setup():\n    return width()\n"))
    message = str(raised.value)

    assert 'given_by_user.py", line 2, in width\n    return 1 / 0' in message
    assert "setup_file.py" not in message


def test_a_loss_of_the_users_own_is_found_and_not_called(write):
    file = write("def focal(prediction, target):\n    raise RuntimeError")

    assert "focal" == load_loss(f"{file}:focal").__name__


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fokal", "has no function 'fokal'; did you mean given_by_user.py:focal?"),
        ("xyz", "write `def xyz(prediction, target):` that returns the loss, a scalar tensor"),
        ("GAMMA", "given_by_user.py:GAMMA is float, expected a function that returns the loss, a scalar tensor"),
    ],
)
def test_what_is_wrong_with_the_name_of_a_loss_is_said(function, words, write):
    file = write("GAMMA = 2.0\ndef focal(prediction, target): ...")

    with pytest.raises(SetupError, match=re.escape(words)):
        load_loss(f"{file}:{function}")


def test_a_missing_file_of_losses_is_told_with_what_is_expected():
    words = r"no file 'my.py'; expected FILE.py:function, the function returns the loss, a scalar tensor"
    with pytest.raises(SetupError, match=words):
        load_loss("my.py:focal")


@pytest.mark.parametrize(
    ("text", "file"), [("my.py:focal", True), ("a/b.py", True), ("huber", False), ("cross-entropy", False)]
)
def test_a_file_is_told_from_a_name(text, file):
    assert file == is_file_target(text)


def test_a_file_is_located_in_the_folder_that_names_it_and_a_name_stays(tmp_path):
    folder = tmp_path.resolve()

    assert f"{folder}/my.py:focal" == located("../my.py:focal", folder / "settings")
    assert f"{folder}/my.py" == located("my.py", folder)
    assert f"{folder}/a/../my.py:focal" == located(f"{folder}/a/../my.py:focal", folder / "settings"), (
        "it is kept for resuming"
    )
    assert "huber(delta=2)" == located("huber(delta=2)", folder)
