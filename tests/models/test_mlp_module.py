"""The multi-layer perceptron."""

import pytest
import torch

from chainrule.models import MLP
from chainrule.models.mlp import NORMS


def test_layers_have_the_widths_and_an_activation_between_them():
    model = MLP((2, 3, 1), activation=torch.sigmoid)
    x_BI = torch.randn(5, 2)
    expected = model.layers[1](torch.sigmoid(model.layers[0](x_BI)))

    assert [(3, 2), (1, 3)] == [tuple(layer.weight.shape) for layer in model.layers]
    torch.testing.assert_close(expected, model(x_BI))


def test_the_output_may_have_its_own_activation():
    model = MLP((2, 2, 1), activation=torch.sigmoid, output=torch.sigmoid)

    assert ((model(torch.randn(9, 2)) > 0) & (model(torch.randn(9, 2)) < 1)).all()


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 1)])
def test_widths_without_inputs_and_outputs_are_refused(widths):
    with pytest.raises(ValueError, match="at least inputs and outputs are needed"):
        MLP(widths)


@pytest.mark.parametrize("name", ["batch", "layer", "rms"])
def test_the_norm_stands_between_the_linear_map_and_the_activation(name):
    model = MLP((2, 4, 1), torch.relu, norm=NORMS[name])
    x_BI = torch.randn(5, 2)
    expected = model.layers[1](torch.relu(model.norms[0](model.layers[0](x_BI))))

    torch.testing.assert_close(expected, model(x_BI))


def test_a_batch_norm_takes_the_place_of_the_bias_before_it():
    assert [None, None] == [layer.bias for layer in MLP((2, 3, 3, 1), norm=NORMS["batch"]).layers[:-1]]
    assert all(layer.bias is not None for layer in MLP((2, 3, 3, 1), norm=NORMS["layer"]).layers)


def test_hidden_units_are_dropped_in_training_only_and_none_of_the_outputs_is():
    model = MLP((3, 1000, 1000, 1), torch.relu, dropout=0.5)
    x_BI = torch.ones(1, 3)
    seen = []
    model.layers[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))

    model(x_BI)
    model.eval()
    first, again = model(x_BI), model(x_BI)

    kept = seen[0][seen[1] > 0] > 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert torch.equal(first, again)
    torch.testing.assert_close(seen[0][seen[0] > 0], 2 * seen[1][seen[0] > 0])


def test_without_norm_and_dropout_the_state_is_that_of_the_layers_alone():
    assert ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"] == list(MLP((2, 3, 1)).state_dict())
