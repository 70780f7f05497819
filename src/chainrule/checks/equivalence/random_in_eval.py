"""random-in-eval: dropout is active in eval mode.

What it checks
    Two passes in eval mode with different random numbers, and if they differ what draws them.
Why it matters
    F.dropout(x, p) has training=True by default, and a dropout module made inside forward is always in train mode. Evaluation
    is then noisy and too pessimistic, and generation random.
How it decides
    The losses differ although the mode is eval, and the graph of eval mode holds a dropout mask: a warning, since dropout in
    eval can be meant (Monte Carlo dropout). Other draws, such as a VAE's sample, are not reported.
Broken
    y = F.dropout(x, 0.5)
Repaired
    y = F.dropout(x, 0.5, training=self.training)
Limits
    Dropout inside a fused recurrent layer follows its module's mode and is not looked at.
"""

from __future__ import annotations

from chainrule.capture import capture
from chainrule.capture.preserve import preserved
from chainrule.checks.copies import losses_in_eval
from chainrule.checks.equivalence.rows import sample
from chainrule.checks.subject import Subject, line_of
from chainrule.errors import ChainruleError
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Leaf, Node, op_name

NAME = "random-in-eval"


def check(subject: Subject) -> Outcome:
    """Run twice in eval mode; if the losses differ, look for dropout."""
    try:
        few, seeds = sample(subject), (subject.seed, subject.seed + 1)
        losses = [float(losses_in_eval(subject.setup, few, seed=seed)[0]) for seed in seeds]
    except Exception as error:  # whatever the user's code raises in eval mode
        return NotRun(f"the model refuses eval mode: {type(error).__name__}")
    return [] if losses[0] == losses[1] else _dropouts(losses, subject)


def _dropouts(losses: list[float], subject: Subject) -> Outcome:
    model = subject.setup.module
    with preserved(model):
        model.eval()
        try:
            graph = capture(model, subject.setup.loss, subject.batch)
        except ChainruleError:
            return NotRun("the model cannot be captured in eval mode")
    drops = [(leaf, leaf.recipe) for leaf in graph.leaves.values() if leaf.recipe is not None]
    users = {ref.name: node for node in reversed(graph.nodes) for ref in node.refs()}
    return [
        _finding(users.get(leaf.name), recipe, losses, subject) for leaf, recipe in drops if _is_dropout(leaf, recipe)
    ]


def _is_dropout(leaf: Leaf, recipe: Node) -> bool:
    return "dropout" in op_name(recipe.op) or "bernoulli" in op_name(recipe.op) or "dropout" in leaf.name


def _finding(user: Node | None, recipe: Node, losses: list[float], subject: Subject) -> Finding:
    node = user or recipe
    return Finding(
        check=NAME,
        severity="warning",
        where=node.module or node.where,
        source=line_of(node.source or recipe.source),
        message="this dropout is active in eval mode",
        evidence={"losses": losses},
        rows=(("two passes in eval mode", f"{losses[0]:.6g}, {losses[1]:.6g}", "different random numbers"),),
        notes=("Pass training=self.training to F.dropout, and make dropout modules in __init__, not in forward.",),
        reproduce=subject.reproduce(NAME),
    )
