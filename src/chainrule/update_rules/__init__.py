"""Reference formulas of the optimizers, one file each, and other readings of them that are in use under the same names."""

from chainrule.update_rules.known import OF_TORCH as OF_TORCH
from chainrule.update_rules.known import RULES as RULES
from chainrule.update_rules.known import claimed_by as claimed_by
from chainrule.update_rules.known import possible as possible
from chainrule.update_rules.known import rule_of_torch as rule_of_torch
from chainrule.update_rules.rule import UpdateRule as UpdateRule
from chainrule.update_rules.rule import suffices as suffices
