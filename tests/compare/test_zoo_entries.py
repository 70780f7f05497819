"""Numerical gradients of healthy models of every kind: inside their bars, at about 8 evaluations each."""

import pytest
import torch

from chainrule.autodiff import value_and_grad
from chainrule.capture import capture, promote
from chainrule.compare.entries import numerical_entries
from zoo.models import OWN

NAMES = ("gpt_dropout", "llama_like", "experts", "resnet", "unet", "vq_vae", "lstm_lm", "gru_classifier", "unrolled")
NAMES += ("skip_gram", "graph_net", "triplet", "ppo", "branching", "in_place", "frozen", "normed_weights")
MODELS = [model for model in OWN if str(model) in NAMES]


def test_all_the_models_named_here_are_in_the_zoo():
    assert set(NAMES) == {str(model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_an_entry_of_every_parameter_agrees_with_the_chain_rule_within_its_bar(model):
    graph = promote(capture(*model.build()), torch.float64)
    _, gradients = value_and_grad(graph)
    generator = torch.Generator().manual_seed(0)
    rounding = 1e-15 * max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        flat = torch.randint(gradient.numel(), (1,), generator=generator)[0]
        entry = tuple(int(i) for i in torch.unravel_index(flat, gradient.shape)) if gradient.dim() else ()

        found = numerical_entries(graph, name, entries=[entry])

        error = abs(float(found.gradient[entry] - gradient[entry]))
        assert error <= float(found.bar[entry]) + rounding, f"{name}{list(entry)}"
