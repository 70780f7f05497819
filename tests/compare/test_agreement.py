"""A gradient that cancels to zero is known by what it sums, also behind a cast."""

import torch

import chainrule as cr
from chainrule.autodiff import evaluate
from chainrule.autodiff.reverse import reverse
from chainrule.capture import promote
from chainrule.compare.agreement import agreements, leaf_bounds
from chainrule.graph import Ref
from chainrule.models import Transformer, next_token_loss


def bounds(loss):
    torch.manual_seed(0)
    model = Transformer(vocabulary=20, layers=1, heads=2, hidden=8, context=6)
    batch = {"tokens": torch.randint(20, (2, 6)), "targets": torch.randint(20, (2, 6))}
    graph = promote(cr.capture(model, loss, batch), torch.float64)
    values = evaluate(graph)
    found = leaf_bounds(graph, values, reverse(graph, values))
    return {path: found[Ref(leaf.name)] for path, leaf in graph.parameters.items()}


def autocast_loss(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        return next_token_loss(model, batch)


def test_a_keys_bias_has_the_size_of_its_terms_not_of_its_sum():
    assert bounds(next_token_loss)["blocks.0.attention.key.bias"] > 1e-6


def test_the_bound_is_the_same_where_autocast_casts_every_weight():
    plain, cast = bounds(next_token_loss), bounds(autocast_loss)

    for path in plain:
        assert abs(plain[path] - cast[path]) <= 1e-9 * plain[path], path


def test_gradients_that_agree_but_for_the_rounding_of_a_sum_that_cancels_are_told_from_wrong_ones():
    torch.manual_seed(0)
    model = Transformer(vocabulary=20, layers=1, heads=2, hidden=8, context=6)
    batch = {"tokens": torch.randint(20, (2, 6)), "targets": torch.randint(20, (2, 6))}
    graph = promote(cr.capture(model, next_token_loss, batch), torch.float64)
    values = evaluate(graph)
    adjoints = reverse(graph, values)
    theirs = {path: adjoints[Ref(leaf.name)] for path, leaf in graph.parameters.items()}
    key = "blocks.0.attention.key.bias"
    summed = leaf_bounds(graph, values, adjoints)[Ref(graph.parameters[key].name)]
    theirs[key] = theirs[key] + 1e-14 * summed
    theirs["blocks.0.attention.value.bias"] = theirs["blocks.0.attention.value.bias"] * (1 + 1e-9)

    found = {agreement.path: agreement for agreement in agreements(graph, values, adjoints, theirs)}

    assert ["blocks.0.attention.value.bias"] == [path for path, agreement in found.items() if not agreement.ok]
    assert "cancel" in found[key].limit.reason
