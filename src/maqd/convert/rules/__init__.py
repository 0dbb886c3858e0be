"""What each kind of call of a float network becomes, one file a family."""

from maqd.convert.rewriter import Rules
from maqd.convert.rules import activation, merging, normalization, pooling, shape, weighted

RULES = Rules.union(weighted.RULES, normalization.RULES, activation.RULES, merging.RULES, pooling.RULES, shape.RULES)

__all__ = ["RULES"]
