"""Write docs/checks.md anew: every check by group, in the words of its own page."""

import inspect
from pathlib import Path

from chainrule.checks.gradient import STAGES
from chainrule.checks.groups import AMONG_RANKS, CHECKS, JUDGES, ON_REQUEST
from chainrule.checks.own_loss import CHECKS as OF_A_LOSS
from chainrule.preflight import documented

PAGE = Path(__file__).parents[1] / "docs" / "checks.md"
HEAD = """# The checks

`chainrule why NAME` prints a check's page: what it checks, why it matters, how it decides, an example broken and repaired, and
its limits. *Before* looks at the set-up before the first update; *watched* judges what a loop did, be it your own under `run`
or `watch`, or the rehearsal that `check` makes of `Setup.step`; *on request* runs only if named by `--only`, for it trains or
compiles.
The gradient's stages are described in [gradients.md](gradients.md); what each check catches, in [faults.md](faults.md).
"""


def page() -> str:
    """The page as it should be."""
    pages = {name: (inspect.getdoc(module) or "").splitlines()[0] for name, module in documented().items()}
    tables = {
        "before": CHECKS,
        "watched": JUDGES,
        "watched in several processes": AMONG_RANKS,
        "on request": ON_REQUEST,
    }
    stages = dict.fromkeys(name for name, _ in STAGES.values())
    lines = [HEAD, f"{len(pages)} checks.", "", "## The gradient's stages"]
    lines += [f"- **{name}**{pages[name].removeprefix(name)}" for name in stages]
    for group in dict.fromkeys(group for table in tables.values() for group in table):
        lines += ["", f"## {group.capitalize()}"]
        for when, table in tables.items():
            lines += [f"- **{c.NAME}** ({when}){pages[c.NAME].removeprefix(c.NAME)}" for c in table.get(group, ())]
    lines += ["", "## A loss function of your own", "`chainrule losses FILE.py:function` runs these.", ""]
    lines += [f"- **{check.NAME}**{pages[check.NAME].removeprefix(check.NAME)}" for check in OF_A_LOSS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
