"""The text report: findings in the manner of a compiler, stages with what each could have seen, the verdict last.

A line is a tuple of (text, role) spans. Without roles it is the plain text; `terminal.py` gives the roles a colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TypeAlias

from chainrule.finding import Finding, StageResult
from chainrule.report import words
from chainrule.report.contents import Contents

Line: TypeAlias = tuple[tuple[str, str], ...]
NARROWEST, WIDEST = 60, 120


def text(contents: Contents, width: int = 100) -> str:
    """The whole report as plain text, no line longer than `width` where words allow it."""
    return "\n".join("".join(part for part, _ in line).rstrip() for line in lines(contents, width))


def closing(contents: Contents, stages: tuple[StageResult, ...], width: int = 100) -> str:
    """The last words on something that was reported on as it went: these stages, and the verdict of all."""
    blocks = [block for block in (_stages(stages, width), _not_run(stages, width)) if block]
    last = [*(line for block in blocks for line in (*block, ())), *_verdict(contents, width)]
    return "\n".join("".join(part for part, _ in line).rstrip() for line in last)


def finding_text(finding: Finding, width: int = 100) -> str:
    """One finding as plain text, as it stands in the report."""
    return "\n".join("".join(part for part, _ in line).rstrip() for line in _finding(finding, width))


def lines(contents: Contents, width: int = 100) -> Iterator[Line]:
    """The report line by line: subject, stages, findings with the worst first, verdict."""
    width = min(max(width, NARROWEST), WIDEST)
    blocks = (_subject(contents, width), _stages(contents.stages, width), _not_run(contents.stages, width))
    for block in (*blocks, *_findings(contents, width)):
        if block:
            yield from block
            yield ()
    yield from _verdict(contents, width)


def _subject(contents: Contents, width: int) -> list[Line]:
    labelled = [*contents.subject, *(("note", note) for note in contents.notes)]
    column = max((len(label) for label, _ in labelled), default=0) + 2
    return [line for label, value in labelled for line in _labelled(f"  {label:<{column}}", value, width)]


def _labelled(label: str, value: str, width: int) -> Iterator[Line]:
    first, *rest = _wrap(value, width - len(label))
    yield ((label, "quiet"), (first, ""))
    for line in rest:
        yield ((" " * len(label) + line, ""),)


def _stages(stages: tuple[StageResult, ...], width: int) -> list[Line]:
    if not stages:
        return []
    column = max(len(stage.name) for stage in stages) + 2
    title = (("resolution".rjust(width - 12) + "time".rjust(12), "quiet"),)
    return [title, *(line for stage in stages for line in _stage(stage, column, width))]


def _stage(stage: StageResult, column: int, width: int) -> Iterator[Line]:
    verdict, label = words.outcome(stage), f"{stage.name:<{column}}"
    spent = words.duration(stage.seconds) if stage.verdict else ""
    right = f"{words.resolution(stage):>10}{spent:>12}"
    room = width - 14 - len(label) - len(right)
    first, *rest = _wrap(stage.summary, room)
    yield ((f"  {verdict:<12}", verdict), (label, "where"), (f"{first:<{room}}", ""), (right, "quiet"))
    for line in rest:
        yield ((" " * (14 + len(label)) + line, ""),)


def _not_run(stages: tuple[StageResult, ...], width: int) -> list[Line]:
    """Which checks could not be made for want of something that the user could give, by what is missing."""
    sentences = []
    for stage in stages:
        reasons: dict[str, list[str]] = {}
        for name, refusal in stage.not_run.items():
            if refusal.missing:
                reasons.setdefault(refusal.reason, []).append(name)
        for reason, names in reasons.items():
            what = ", ".join(names) if len(names) < 4 else f"{len(names)} checks of {stage.name}"
            sentences.append(f"not run: {what} ({reason})")
    return [line for sentence in sentences for line in _paragraph(sentence, width, indent="  ", role="quiet")]


def _findings(contents: Contents, width: int) -> list[list[Line]]:
    return [list(_finding(finding, width)) for finding in contents.ranked]


def _finding(finding: Finding, width: int) -> Iterator[Line]:
    yield from _headline(finding, width)
    if finding.source or "node" in finding.evidence:
        yield from _place(finding, width)
    yield from _rows(finding.rows, width)
    for note in finding.notes:
        yield from _paragraph(note, width, indent="  ")
    yield from _last(finding, width)


def _headline(finding: Finding, width: int) -> Iterator[Line]:
    tag = f"{finding.severity}[{finding.check}]"
    where = f" {finding.where}:" if finding.where else ":"
    first, *rest = _wrap(f"{tag}{where} {finding.message}", width, hang="  ")
    message = first.removeprefix(tag).removeprefix(where)
    if f"{tag}{where}{message}" == first:
        yield ((tag, finding.severity), (where, "where"), (message, "strong"))
    else:  # a place so long that it was broken
        yield ((first, finding.severity),)
    for line in rest:
        yield ((line, "strong"),)


def _place(finding: Finding, width: int) -> Iterator[Line]:
    """The user's line, and the node that it became; each on a line of its own where there is no room."""
    source, node = finding.source, _node(finding)
    place = words.place(source) if source else "(no line of yours)"
    line: list[tuple[str, str]] = [("  --> ", "quiet"), (place, "where")]
    for part, role in ((source.code.strip() if source else "", ""), (node, "quiet")):
        if part and sum(len(text) for text, _ in line) + 3 + len(part) > width:
            yield tuple(line)
            line = [("      " + part, role)]
        elif part:
            line.append(("   " + part, role))
    yield tuple(line)


def _node(finding: Finding) -> str:
    evidence = finding.evidence
    if "node" not in evidence:
        return ""
    what = " ".join(str(evidence[key]) for key in ("output", "shape", "dtype") if key in evidence)
    return f"node {evidence['node']}" + (f", {what}" if what else "")


def _rows(rows: tuple[tuple[str, str, str], ...], width: int) -> Iterator[Line]:
    label_width = max((len(label) for label, _, _ in rows), default=0) + 2
    value_width = max((len(value) for _, value, _ in rows), default=0)
    left = 2 + label_width + value_width + 3
    for label, value, remark in rows:
        first, *rest = _wrap(remark, max(width - left, 30))
        yield ((f"  {label:<{label_width}}", ""), (f"{value:>{value_width}}", "strong"), (f"   {first}", "quiet"))
        for line in rest:
            yield ((" " * left + line, "quiet"),)


def _last(finding: Finding, width: int) -> Iterator[Line]:
    why = f"why: chainrule why {finding.check}"
    if not finding.reproduce:
        yield ((f"  {why}", "quiet"),)
        return
    reproduce = f"reproduce: {finding.reproduce}"
    if len(reproduce) + len(why) + 10 <= width:
        yield ((f"  {reproduce}        {why}", "quiet"),)
    else:  # a command is never broken, so that it can be copied
        yield ((f"  {reproduce}", "quiet"),)
        yield ((f"  {why}", "quiet"),)


def _verdict(contents: Contents, width: int) -> Iterator[Line]:
    word = contents.verdict.upper() + "  "
    first, *rest = _wrap(words.conclusion(contents), width - len(word))
    yield ((word, contents.verdict), (first, "strong"))
    for line in rest:
        yield ((" " * len(word) + line, "strong"),)
    yield from _paragraph(words.origin(contents), width, indent=" " * len(word), role="quiet")
    if contents.command:
        yield ((" " * len(word) + contents.command, "quiet"),)


def _paragraph(sentence: str, width: int, *, indent: str, role: str = "") -> Iterator[Line]:
    for line in _wrap(sentence, width, indent=indent, hang=indent):
        yield ((line, role),)


def _wrap(sentence: str, width: int, *, indent: str = "", hang: str = "") -> list[str]:
    """Lines of at most `width`, at least one; a path, a number or a command is never broken."""
    wrapper = textwrap.TextWrapper(width, indent, hang, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(sentence) or [indent]
