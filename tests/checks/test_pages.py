"""Every check has a page: a first sentence that begins with its name, the headings in order, and code that is Python."""

import ast
import re
import textwrap

import pytest

from chainrule.checks import equivalence, loop, numeric, own_loss, search, statistics, update

HEADINGS = ["What it checks", "Why it matters", "How it decides", "Broken", "Repaired", "Limits"]
READ = (
    *statistics.CHECKS,
    *statistics.JUDGES,
    *numeric.CHECKS,
    *numeric.JUDGES,
    *equivalence.CHECKS,
    *equivalence.ON_REQUEST,
)
CHECKS = (*update.CHECKS, *update.JUDGES, *loop.JUDGES, *search.ON_REQUEST, *own_loss.CHECKS, *READ)
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.NAME)


@each_check
def test_the_page_begins_with_the_name_and_has_all_headings_in_order(check):
    first, *lines = check.__doc__.splitlines()

    assert first.startswith(f"{check.NAME}: ")
    assert HEADINGS == [line for line in lines if line in HEADINGS]


@each_check
@pytest.mark.parametrize("heading", ["Broken", "Repaired"])
def test_the_code_of_the_page_is_python(heading, check):
    block = re.search(rf"^{heading}\n((?:    .*\n|\n)+)", check.__doc__, re.MULTILINE)[1]

    assert ast.parse(textwrap.dedent(block)).body


@each_check
def test_the_file_has_the_name_of_the_fault(check):
    assert check.NAME.replace("-", "_") == check.__name__.rpartition(".")[2]
