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

## In a run
`loss = "huber"` in RUN.toml, or `--loss huber`, trains a table or a text with one of them; `loss = "huber(delta=0.7)"` sets it;
`loss = "my_losses.py:focal"` takes your own. In a file the path is relative to that file, on the command line to the working
directory; the run keeps it absolute. One that does not suit the target is refused with those that do.

| task | called with prediction | target |
|---|---|---|
| table, regression | (B,), with `poisson` the logarithm of the rate | (B,) standardised numbers, with `poisson` counts |
| table, two classes | (B,) logits of the second class | (B,) 0.0 or 1.0 |
| table, several classes | (B, K) logits | (B,) class numbers |
| text | (N, V) logits of the N = windows · context tokens of a batch | (N,) next tokens; every one counts, none is ignored |

It returns the mean over the examples: parts of a batch are then put together by their sizes, exactly. Predictions are float32
also where the products of the run are shorter. The preflight examines your own by itself, before the model: its gradient (is
there one, is it the slope of the loss), edges (logits ±100, no error at all, one example, one class only), its scale, and
whether it is a mean over the examples; [these checks](checks.md#a-loss-function-of-your-own). The same examination alone is
`chainrule losses FILE.py:function`; its exit code is 0, 1 if the loss must not be trained with, 3 if unresolved. All three
gradient engines differentiate it.

A table is validated by the loss that it is trained with. A text is always validated by the cross entropy, in nats per token:
early stopping, the best checkpoint, bits per byte and the bigram model need one unit. The training loss is told in its own.

A resumed run reads the file again; if it was edited since, the run is not resumed, as with any other setting.

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
