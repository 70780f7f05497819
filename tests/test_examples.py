"""Every example runs, prints what its docstring says, and stays short."""

import ast
import doctest
import runpy
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF


def expected_output(file):
    documentation = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False)
    return documentation.partition("Expected output:\n")[2]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_prints_what_its_docstring_says(file, capsys, monkeypatch):
    monkeypatch.setattr("sys.path", [str(FOLDER), *__import__("sys").path])
    monkeypatch.setenv("COLUMNS", "100")
    started = time.process_time()
    runpy.run_path(str(file), run_name="__main__")
    seconds, printed = time.process_time() - started, capsys.readouterr().out
    example = doctest.Example("", expected_output(file))

    assert doctest.OutputChecker().check_output(example.want, printed, FLAGS), (
        f"expected\n{example.want}\nprinted\n{printed}"
    )
    assert 30 > seconds


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_under_sixty_lines_without_its_docstring(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lines = len(file.read_text(encoding="utf-8").splitlines())

    assert "" != expected_output(file)
    assert 60 > lines - tree.body[0].end_lineno
