"""Run a graph and differentiate it: forward, reverse mode, forward mode, and as readable Python."""

from chainrule.autodiff.evaluate import evaluate as evaluate
from chainrule.autodiff.evaluate import loss_of as loss_of
from chainrule.autodiff.reverse import reverse as reverse
from chainrule.autodiff.reverse import value_and_grad as value_and_grad
