"""Run a graph and differentiate it: forward, reverse mode, forward mode, and as readable Python."""

from chainrule.autodiff.compiled import compiled as compiled
from chainrule.autodiff.evaluate import evaluate as evaluate
from chainrule.autodiff.evaluate import loss_of as loss_of
from chainrule.autodiff.forward import jvp as jvp
from chainrule.autodiff.reverse import reverse as reverse
from chainrule.autodiff.reverse import value_and_grad as value_and_grad
from chainrule.autodiff.source import backward_source as backward_source
