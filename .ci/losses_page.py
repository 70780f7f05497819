"""Write docs/losses.md anew: the catalogue of losses, in its own words."""

from pathlib import Path

from chainrule.losses import CATALOGUE
from chainrule.losses.page import TARGETS, settings

PAGE = Path(__file__).parents[1] / "docs" / "losses.md"
HEAD = """# The losses

`chainrule losses` lists them, `chainrule losses NAME` shows one with the plot of loss and gradient, and what its naive form
gives where it breaks. Each is a plain function on tensors, built on PyTorch's own, in a form that stays finite; it returns the
mean over its terms. Values and gradients are tested by three engines, against PyTorch, scikit-learn and closed forms.

    chainrule losses --data houses.csv --target price     # which loss fits this column, and why
    chainrule losses my_losses.py:focal --kind binary     # examine a loss of your own before it trains anything

A table is trained with one of them by `loss = "huber"`, with settings by `loss = "huber(delta=0.7)"`, with your own by
`loss = "my_losses.py:focal"`, called as (prediction, target). The preflight of such a run examines your own: its gradient (is
there one, is it the slope of the loss), edges (logits ±100, no error at all, one example, one class only), its scale, and
whether it is a mean over the examples; [these checks](checks.md#a-loss-function-of-your-own). The exit code of
`chainrule losses FILE.py:function` is 0, 1 if it must not be trained with, 3 if unresolved.

From Python:

```python
import chainrule as cr
from chainrule.losses import loss_named, recommend

recommend(targets).reasons  # an array of numbers, words or booleans
loss_named("huber").function(prediction, target, delta=1.5)
print(cr.check_loss(my_loss, prediction, target))
```

## How a loss is recommended
1. Two distinct values are two classes; words are classes, as are integers without a gap, at most 30 of them with 10 rows each;
   small integers from 0 or 1 whose numbers fall off are counts; all else are numbers. `--kind` overrules.
2. Numbers: outliers lie more than 3.5 scales from the median, the scale being 1.4826 · median absolute deviation (Iglewicz and
   Hoaglin 1993). More than 5 %: mae. More than 0.5 %, or one beyond 6 scales: huber with δ = 1.345 scales. Else mse.
3. Counts: poisson. Two classes: log-loss, weighted below 10 %, binary-focal below 1 %. Classes: cross-entropy, weighted where the
   largest is 10 times the smallest.
"""


def page() -> str:
    """The page as it should be."""
    lines, task = [HEAD], ""
    for loss in CATALOGUE:
        if loss.task != task:
            lines += [f"## {loss.task.capitalize()}"]
            task = loss.task
        naive = (
            f"`{loss.naive.form}`: {loss.naive.breaks}" if loss.naive else "none breaks: it is computed as it stands"
        )
        lines += [
            f"### {loss.name}",
            f"`{loss.formula}`, gradient `{loss.gradient}`; {TARGETS[loss.target]}.",
            "",
            f"- settings: {settings(loss) or 'none'}",
            f"- outliers: {loss.outliers}",
            f"- choose it if: {loss.choose}",
            f"- avoid it if: {loss.avoid}",
            f"- naive form: {naive}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
