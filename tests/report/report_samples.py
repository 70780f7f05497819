"""Reports that the tests of `chainrule.report` render: one that fails, one that passes, one that is unresolved."""

from chainrule.finding import Finding, Line, StageResult
from chainrule.report import Report

VERSIONS = {"chainrule": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}
SUBJECT = (
    ("model", "GPT, 124,439,808 entries in 148 parameters"),
    ("batch", "[0] (1, 512) int64, [1] (1, 512) int64"),
)
SOFTMAX = Finding(
    check="gradient-mismatch",
    severity="error",
    where="blocks.3.attn.softmax",
    message="your gradient is half the chain rule's",
    source=Line("model.py", 118, "        weights = FastSoftmax.apply(scores)"),
    evidence={"node": "softmax_7", "output": "scores_BHTT", "shape": (4, 8, 64, 64), "dtype": "float32", "ratio": 0.5},
    rows=(
        ("yours (torch.autograd)", "1.30e-03", "at index (2, 0, 5, 1)"),
        ("chain rule (float64)", "2.60e-03", "y * (g - sum(g * y))"),
        ("numerical (central, h=6.1e-06)", "2.60e-03", "± 4e-11"),
    ),
    notes=(
        "66,560 of 131,072 elements differ (50.8%; the rest are masked zeros); worst relative error 5.0e-01, allowed "
        "9.5e-07 (float32 eps × sqrt(64))",
        "ratio yours/chain rule = 0.500 at every nonzero element: a constant factor, not a wrong formula; look for a "
        "scale applied twice or a branch not accumulated",
    ),
    reproduce="chainrule check model.py:build --only gradient-mismatch --seed 17",
)
UNHELD = Finding(
    check="parameter-not-optimized",
    severity="warning",
    where="head.bias",
    message="no group of the optimizer holds this parameter",
    evidence={"norm": float("inf")},
)
FAILED = Report(
    findings=(UNHELD, SOFTMAX),
    stages=(
        StageResult("0 forward", "pass", "the graph's loss equals yours bit for bit; two runs are equal", None, 0.42),
        StageResult("1 chain rule", "pass", "124,439,808 entries of 148 parameters agree", 3.2e-11, 14.4),
        StageResult(
            "3 your backward", "fail", "1 of 298 nodes disagrees; the first is blocks.3.attn.softmax", 1.2e-7, 9.8
        ),
        StageResult("4 directions", None, "not run: an earlier gradient stage failed"),
    ),
    subject=SUBJECT,
    seed=17,
    versions=VERSIONS,
    command="chainrule check model.py:build --seed 17",
    notes=("dropout inside the fused attention is off: its mask cannot be held",),
)
PASSED = Report(
    stages=(
        StageResult("0 forward", "pass", "the graph's loss equals yours bit for bit; two runs are equal", None, 0.42),
        StageResult("1 chain rule", "pass", "124,439,808 entries of 148 parameters agree", 3.2e-11, 14.4),
        StageResult("2 rules", "pass", "298 unit formulas agree with order-8 differences of each", 8e-9, 71.0),
        StageResult("3 your backward", "pass", "adjoints at 298 nodes agree within rounding", 1.2e-7, 9.8),
        StageResult("4 directions", "pass", "8 directions over all parameters agree", 4e-11, 47.5),
        StageResult("5 entries", None, "on request only"),
    ),
    subject=SUBJECT,
    seed=17,
    versions=VERSIONS,
    command="chainrule check model.py:build --seed 17",
)
UNRESOLVED = Report(
    findings=(
        Finding(
            check="resolution-not-reached",
            severity="warning",
            where="blocks.0.gate.topk",
            message="differences could only see an error of 2e-05, required is 1e-06",
            unresolved=True,
        ),
    ),
    stages=(StageResult("2 rules", "unresolved", "297 of 298 unit formulas resolved", 2e-5, 3.0),),
)
