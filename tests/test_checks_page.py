"""docs/checks.md names every check in the words of its own page."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci" / "checks_page.py"


def test_the_page_of_all_checks_is_what_the_checks_say():
    spec = importlib.util.spec_from_file_location("checks_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run `python .ci/checks_page.py`"
