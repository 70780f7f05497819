"""The report as one HTML page that needs no network, no script and no other file; light and dark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from chainrule.finding import Finding, StageResult
from chainrule.report import words
from chainrule.report.contents import Contents
from chainrule.report.json import plain

FINEST = 1e-16  # left end of the rulers: float64 cannot see less


def page(contents: Contents) -> str:
    """The whole page."""
    style = files("chainrule.report").joinpath("page.css").read_text(encoding="utf-8")
    title = f"{contents.verdict.upper()}: chainrule check"
    body = "\n".join(
        part for part in (_header(contents), _stages(contents), _findings(contents), _footer(contents)) if part
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(contents: Contents) -> str:
    labelled = [*contents.subject, *(("note", note) for note in contents.notes)]
    subject = "\n".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in labelled)
    return (
        f'<header class="verdict {contents.verdict}">\n<h1>{contents.verdict.upper()}</h1>\n'
        f"<p>{escape(words.conclusion(contents))}</p>\n</header>\n" + (f"<dl>\n{subject}\n</dl>" if subject else "")
    )


def _stages(contents: Contents) -> str:
    if not contents.stages:
        return ""
    ticks = "".join(f"<span>{tick}</span>" for tick in ("1e-16", "1e-12", "1e-8", "1e-4", "1"))
    return f"""<h2>What was compared, and how small an error would have been seen</h2>
<div class="scroll"><table>
<thead><tr><th>outcome</th><th>stage</th><th></th><th class="number">resolution</th>
<th class="sight"><div class="scale">{ticks}</div></th><th class="number">time</th></tr></thead>
<tbody>
{"".join(_stage(stage) for stage in contents.stages)}</tbody></table></div>"""


def _stage(stage: StageResult) -> str:
    verdict = words.outcome(stage)
    spent = words.duration(stage.seconds) if stage.verdict else ""
    reasons = "".join(f"<li>{escape(name)}: {escape(refusal.reason)}</li>" for name, refusal in stage.not_run.items())
    not_run = f"<details><summary>not run</summary><ul>{reasons}</ul></details>" if reasons else ""
    return f"""<tr class="{verdict}"><td class="outcome">{verdict}</td><td class="name">{escape(stage.name)}</td>
<td class="said">{escape(stage.summary)}{not_run}</td><td class="number">{words.resolution(stage)}</td>
<td class="sight">{_ruler(stage)}</td><td class="number">{spent}</td></tr>
"""


def _ruler(stage: StageResult) -> str:
    """A bar over the relative errors, 1e-16 to 1 in logarithms, that the stage would have seen."""
    if stage.resolution is None or stage.verdict is None or math.isnan(stage.resolution):
        return ""
    seen = math.log(min(max(stage.resolution, FINEST), 1.0)) / math.log(FINEST)
    label = escape(f"errors from {words.resolution(stage)} of a gradient's norm upwards would have been seen")
    bar = f'<i style="width:{100 * seen:.1f}%"></i>'
    return f'<div class="ruler" role="img" aria-label="{label}" title="{label}">{bar}</div>'


def _findings(contents: Contents) -> str:
    if not contents.findings:
        return ""
    articles = "\n".join(_finding(finding) for finding in contents.ranked)
    return f"<h2>{escape(words.tally(contents.findings).capitalize())}</h2>\n{articles}"


def _finding(finding: Finding) -> str:
    tag = f'<span class="tag">{finding.severity}[{escape(finding.check)}]</span>'
    where = f'<span class="where">{escape(finding.where)}</span>: ' if finding.where else ""
    parts = [
        f'<article class="{finding.severity}">',
        f"<h3>{tag}{where}{escape(finding.message)}</h3>",
        _source(finding),
        _rows(finding.rows),
        *(f"<p>{escape(note)}</p>" for note in finding.notes),
        _evidence(finding),
        _commands(finding),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _source(finding: Finding) -> str:
    source = finding.source
    if source is None:
        return ""
    place = f'<span class="quiet">{escape(words.place(source))}</span>'
    return f'<div class="line mono">{place}{escape(source.code.strip())}</div>'


def _rows(rows: tuple[tuple[str, str, str], ...]) -> str:
    cells = "\n".join(
        f'<tr><td>{label}</td><td class="number">{value}</td><td class="quiet">{remark}</td></tr>'
        for label, value, remark in (map(escape, row) for row in rows)
    )
    return f'<div class="scroll"><table>\n{cells}\n</table></div>' if rows else ""


def _evidence(finding: Finding) -> str:
    if not finding.evidence:
        return ""
    numbers = json.dumps(plain(finding.evidence), indent=2, ensure_ascii=False)
    return f"<details><summary>evidence</summary><pre>{escape(numbers)}</pre></details>"


def _commands(finding: Finding) -> str:
    commands: Iterable[tuple[str, str]] = (("reproduce", finding.reproduce), ("why", f"chainrule why {finding.check}"))
    shown = [f"{label}: <code>{escape(command)}</code>" for label, command in commands if command]
    return f'<p class="quiet">{" &nbsp; ".join(shown)}</p>'


def _footer(contents: Contents) -> str:
    command = f"<br><code>{escape(contents.command)}</code>" if contents.command else ""
    return f"<footer>{escape(words.origin(contents))}{command}</footer>"
