"""The words of the text report are pinned: changing them is a visible diff."""

import io

from chainrule.finding import Finding, Line, StageResult
from chainrule.report import Report, show
from chainrule.report.terminal import STYLES
from chainrule.report.text import lines, text
from chainrule.report.words import duration
from report.report_samples import FAILED, PASSED, UNRESOLVED

FAILED_TEXT = """\
  model  GPT, 124,439,808 entries in 148 parameters
  batch  [0] (1, 512) int64, [1] (1, 512) int64
  note   dropout inside the fused attention is off: its mask cannot be held

                                                                              resolution        time
  pass        0 forward        the graph's loss equals yours bit for bit; two                 0.42 s
                               runs are equal
  pass        1 chain rule     124,439,808 entries of 148 parameters agree         3e-11        14 s
  fail        3 your backward  1 of 298 nodes disagrees; the first is              1e-07       9.8 s
                               blocks.3.attn.softmax
  skipped     4 directions     not run: an earlier gradient stage failed

error[gradient-mismatch] blocks.3.attn.softmax: your gradient is half the chain rule's
  --> model.py:118   weights = FastSoftmax.apply(scores)
      node softmax_7, scores_BHTT (4, 8, 64, 64) float32
  yours (torch.autograd)          1.30e-03   at index (2, 0, 5, 1)
  chain rule (float64)            2.60e-03   y * (g - sum(g * y))
  numerical (central, h=6.1e-06)  2.60e-03   ± 4e-11
  66,560 of 131,072 elements differ (50.8%; the rest are masked zeros); worst relative error
  5.0e-01, allowed 9.5e-07 (float32 eps × sqrt(64))
  ratio yours/chain rule = 0.500 at every nonzero element: a constant factor, not a wrong formula;
  look for a scale applied twice or a branch not accumulated
  reproduce: chainrule check model.py:build --only gradient-mismatch --seed 17
  why: chainrule why gradient-mismatch

warning[parameter-not-optimized] head.bias: no group of the optimizer holds this parameter
  why: chainrule why parameter-not-optimized

FAIL  1 error, 1 warning: do not train before the errors are repaired
      25 s, seed 17, chainrule 0.1.0, torch 2.13.0, python 3.11.9
      chainrule check model.py:build --seed 17"""

PASSED_TEXT = """\
  model  GPT, 124,439,808 entries in 148 parameters
  batch  [0] (1, 512) int64, [1] (1, 512) int64

                                                                              resolution        time
  pass        0 forward        the graph's loss equals yours bit for bit; two                 0.42 s
                               runs are equal
  pass        1 chain rule     124,439,808 entries of 148 parameters agree         3e-11        14 s
  pass        2 rules          298 unit formulas agree with order-8                8e-09  1 min 11 s
                               differences of each
  pass        3 your backward  adjoints at 298 nodes agree within rounding         1e-07       9.8 s
  pass        4 directions     8 directions over all parameters agree              4e-11        48 s
  skipped     5 entries        on request only

PASS  124,439,808 entries of 148 parameters agree; an error of 1e-07 of a gradient's norm would have
      been seen by every stage that has a resolution
      2 min 23 s, seed 17, chainrule 0.1.0, torch 2.13.0, python 3.11.9
      chainrule check model.py:build --seed 17"""

UNRESOLVED_TEXT = """\
                                                                              resolution        time
  unresolved  2 rules  297 of 298 unit formulas resolved                           2e-05         3 s

warning[resolution-not-reached] blocks.0.gate.topk: differences could only see an error of 2e-05,
  required is 1e-06
  why: chainrule why resolution-not-reached

UNRESOLVED  no error was found, but 1 required resolution could not be reached; see the warnings
            3 s, seed 0"""


def test_a_failed_report_shows_the_stages_then_the_findings_worst_first_then_the_verdict():
    assert FAILED_TEXT == text(FAILED, 100)


def test_a_passed_report_says_what_was_proved_and_what_would_have_been_seen():
    assert PASSED_TEXT == text(PASSED, 100)


def test_an_unresolved_report_does_not_call_itself_a_pass():
    assert UNRESOLVED_TEXT == text(UNRESOLVED, 100)


def test_no_line_is_wider_than_asked():
    for width in (72, 80, 100, 120):
        wide = [line for line in text(FAILED, width).splitlines() if len(line) > width]

        assert [] == [line for line in wide if "reproduce: " not in line]  # a command stays whole, to be copied


def test_a_node_that_does_not_fit_beside_the_code_gets_its_own_line():
    narrow = text(FAILED, 80)

    assert "  --> model.py:118   weights = FastSoftmax.apply(scores)\n" in narrow
    assert "\n      node softmax_7, scores_BHTT (4, 8, 64, 64) float32\n" in narrow


def test_a_file_below_the_working_folder_is_named_from_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    here, elsewhere = (
        Finding("x", "error", "", "m", source=Line(f, 3)) for f in (f"{tmp_path}/a/model.py", "/lib/b.py")
    )

    assert "  --> a/model.py:3\n" in text(Report((here,)))
    assert "  --> /lib/b.py:3\n" in text(Report((elsewhere,)))


def test_a_long_line_of_code_and_a_long_remark_are_broken():
    code = "weights = FastSoftmax.apply(scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf))"
    row = (
        "chain rule",
        "1.0",
        "derivative of the forward of FastSoftmax; first formula: y_i = exp self_i / Σ exp self_j",
    )
    printed = text(Report((Finding("x", "error", "", "m", source=Line("m.py", 3, code), rows=(row,)),)), 90)

    assert f"  --> m.py:3\n      {code}\n" in printed
    assert "  chain rule  1.0   derivative of the forward of FastSoftmax; first formula: y_i = exp\n" in printed
    assert f"\n{' ' * 20}self_i / Σ exp self_j\n" in printed


def test_a_report_of_nothing_claims_nothing_about_gradients():
    assert "PASS  no gradient stage ran, so nothing is said of the gradients\n      0 s, seed 0" == text(Report())


def test_a_pass_with_a_warning_still_counts_it():
    warning = Finding(check="initial-loss", severity="warning", where="", message="the loss starts at 40, expected 4.8")
    stage = StageResult("1 chain rule", "pass", "20 entries of 2 parameters agree", 2e-15, 0.1)

    assert "warning[initial-loss]: the loss starts at 40, expected 4.8" in text(Report((warning,), (stage,)))
    assert "PASS  1 warning; 20 entries of 2 parameters agree; an error of 2e-15" in text(Report((warning,), (stage,)))


def test_the_resolution_of_a_pass_is_that_of_the_coarsest_stage_that_ran():
    stages = (
        StageResult("1 chain rule", "pass", "all agree", 2e-15, 0.1),
        StageResult("3 your backward", "pass", "all agree", 3e-7, 0.1),
        StageResult("5 entries", None, "on request only", 1e-2, 0.0),
    )

    assert "an error of 3e-07 of a gradient's norm would have been seen" in " ".join(
        text(Report(stages=stages)).split()
    )


def test_every_role_of_a_span_has_a_style():
    roles = {role for report in (FAILED, PASSED, UNRESOLVED) for line in lines(report) for _, role in line}

    assert set() == roles - STYLES.keys()


def test_output_that_is_no_terminal_has_no_colour():
    file = io.StringIO()
    show(FAILED, file)

    assert FAILED_TEXT + "\n" == file.getvalue()


def test_a_terminal_gets_colour_unless_no_color_is_set(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    show(FAILED, coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    show(FAILED, plain)

    assert "\x1b[1;31merror[gradient-mismatch]\x1b[0m" in coloured.getvalue()
    assert FAILED_TEXT + "\n" == plain.getvalue()


def test_a_report_prints_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    assert text(FAILED, 80) == str(FAILED)


def test_a_report_at_the_prompt_is_one_line():
    assert "<Report fail: 1 error, 1 warning>" == repr(FAILED)


def test_times_are_worded_by_their_size():
    seconds = (0.004, 0.42, 6.0, 14.2, 143, 11_520)

    assert ["<0.01 s", "0.42 s", "6 s", "14 s", "2 min 23 s", "3 h 12 min"] == [duration(one) for one in seconds]
