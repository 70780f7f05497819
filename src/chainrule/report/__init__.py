"""Reports: what was found and what could have been seen, as text, JSON, SARIF and HTML. Renders; computes nothing."""

from __future__ import annotations

from chainrule.report import github as github
from chainrule.report.report import Report as Report
from chainrule.report.terminal import show as show
