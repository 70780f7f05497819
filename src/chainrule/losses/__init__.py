"""The catalogue of losses: formula, gradient, stable form, and when to choose which; a plain function on tensors each."""

from chainrule.losses.called import loss_called as loss_called
from chainrule.losses.catalogue import CATALOGUE as CATALOGUE
from chainrule.losses.catalogue import loss_named as loss_named
from chainrule.losses.entry import Loss as Loss
from chainrule.losses.recommend import Recommendation as Recommendation
from chainrule.losses.recommend import recommend as recommend
