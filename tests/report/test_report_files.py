"""A report saved: JSON by the API's names, SARIF that editors read, a page that needs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest

from chainrule.errors import ConfigError
from chainrule.finding import Finding, Line
from chainrule.report import Report, github
from chainrule.report.contents import Contents
from chainrule.report.html import page
from chainrule.report.sarif import as_log
from report.report_samples import FAILED, PASSED, UNRESOLVED


def test_json_holds_verdict_findings_and_stages(tmp_path):
    written = json.loads(FAILED.save(tmp_path / "report.json").read_text(encoding="utf-8"))

    assert written == FAILED.to_dict()
    assert (False, "fail") == (written["ok"], written["verdict"])
    assert {"file": "model.py", "line": 118, "code": "        weights = FastSoftmax.apply(scores)"} == written[
        "findings"
    ][1]["source"]
    assert [4, 8, 64, 64] == written["findings"][1]["evidence"]["shape"]
    assert {"name": "1 chain rule", "verdict": "pass", "resolution": 3.2e-11} == {
        key: written["stages"][1][key] for key in ("name", "verdict", "resolution")
    }


def test_json_has_the_keys_that_the_design_promises():
    assert {"ok", "verdict", "findings"} <= FAILED.to_dict().keys()
    assert {"check", "severity", "where", "source", "message", "evidence"} <= FAILED.to_dict()["findings"][0].keys()


def test_infinite_and_odd_evidence_becomes_strings_because_json_has_none(tmp_path):
    odd = {"norm": float("inf"), "nan": float("nan"), "op": object, ("a", 1): [1.5, (2,)]}
    report = Report((Finding("x", "info", "", "m", evidence=odd),))
    evidence = json.loads(report.save(tmp_path / "r.json").read_text())["findings"][0]["evidence"]

    assert {"norm": "inf", "nan": "nan", "op": "<class 'object'>", "('a', 1)": [1.5, [2]]} == evidence


@pytest.mark.parametrize(
    ("report", "ok", "verdict"), [(FAILED, False, "fail"), (PASSED, True, "pass"), (UNRESOLVED, True, "unresolved")]
)
def test_ok_and_verdict_follow_from_the_findings(report, ok, verdict):
    assert (ok, verdict) == (report.ok, report.verdict)


def test_sarif_has_a_result_per_finding_with_the_users_line(tmp_path):
    log = json.loads(FAILED.save(tmp_path / "report.sarif").read_text(encoding="utf-8"))
    (run,) = log["runs"]
    warning, error = run["results"]

    assert "2.1.0" == log["version"]
    assert ["warning", "error"] == [warning["level"], error["level"]]
    assert error["ruleId"] == run["tool"]["driver"]["rules"][error["ruleIndex"]]["id"] == "gradient-mismatch"
    assert {
        "artifactLocation": {"uri": "model.py"},
        "region": {"startLine": 118, "snippet": {"text": "        weights = FastSoftmax.apply(scores)"}},
    } == error["locations"][0]["physicalLocation"]
    assert "physicalLocation" not in warning["locations"][0]


def test_sarif_addresses_are_uris_whatever_the_file_is_called(tmp_path):
    def address(file):
        log = as_log(Report((Finding("x", "error", "", "m", source=Line(file, 3)),)))
        return log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]

    assert "my%20models/a%23b.py" == address("my models/a#b.py")
    assert "file:///home/me/my%20model.py" == address("/home/me/my model.py")


class Page(HTMLParser):
    """Collects the tags left open and everything that would fetch something."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.fetched += [f"{name}={value}" for name, value in attributes if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("report", [FAILED, PASSED, UNRESOLVED, Report()])
def test_the_page_is_well_formed_and_fetches_nothing(report, tmp_path):
    written = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(written)

    assert [] == parsed.open
    assert [] == parsed.fetched
    assert not re.search(r"url\(|@import|<script|https?:", written)


def test_the_page_says_what_the_text_says():
    parsed = Page()
    parsed.feed(page(FAILED))
    for words in ("FAIL", "1 error, 1 warning", "your gradient is half the chain rule's", "model.py:118", "2.60e-03"):
        assert words in parsed.text
    assert FAILED.command in parsed.text


def test_the_users_code_cannot_break_the_page():
    hostile = Finding("x", "error", "<b>", "a < b & </article><script>alert(1)</script>", evidence={"k": "</pre>"})
    parsed = Page()
    parsed.feed(page(Report((hostile,))))

    assert [] == parsed.open
    assert "a < b & </article><script>alert(1)</script>" in parsed.text


def test_the_ruler_covers_the_errors_that_would_have_been_seen():
    widths = [float(width) for width in re.findall(r'<i style="width:([\d.]+)%"', page(PASSED))]

    assert pytest.approx([65.6, 50.6, 43.3, 65.0], abs=0.1) == widths  # log10 of 3.2e-11, 8e-9, 1.2e-7, 4e-11 over -16


def test_text_is_saved_with_a_newline_at_its_end(tmp_path):
    assert PASSED.save(tmp_path / "sub" / "report.txt").read_text(encoding="utf-8").endswith("--seed 17\n")


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r"cannot save a report as 'report.pdf': the name must end in .html, .json, .sarif, .txt"
    ):
        PASSED.save(tmp_path / "report.pdf")


def test_annotations_stand_at_the_users_line_and_are_escaped():
    finding = Finding("a-check", "error", "blocks.3", "100 % wrong,\nreally", Line("model.py", 118, "x = y"))
    plain = Finding("b-check", "info", "", "remark")
    assert list(github.lines(Contents(findings=(plain, finding)))) == [
        "::error file=model.py,line=118,title=a-check::blocks.3: 100 %25 wrong,%0Areally\n",
        "::notice title=b-check::remark\n",
    ]
