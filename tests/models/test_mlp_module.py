"""The multi-layer perceptron."""

import pytest
import torch

from chainrule.models import MLP


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
