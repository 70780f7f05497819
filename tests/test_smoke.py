"""Does the house stand? One small model through every engine, in less than ten seconds; runs before all other tests."""

import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x_BD):
        return self.out(torch.tanh(self.norm(self.hidden(x_BD))))


def cross_entropy(model, batch):
    x_BD, labels_B = batch
    return F.cross_entropy(model(x_BD), labels_B)


def batch():
    return torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])


def test_three_engines_agree_on_every_entry():
    model, given = Classifier().double(), (torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1]))
    graph = cr.capture(model, cross_entropy, given)
    loss, gradients = cr.value_and_grad(graph)
    cross_entropy(model, given).backward()

    assert dict(model.named_parameters()).keys() == gradients.keys()
    torch.testing.assert_close(cross_entropy(model, given).detach(), loss, rtol=1e-14, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-11, atol=1e-14)
        numerical = cr.numerical_gradient(graph, name)
        inside = (parameter.grad - numerical.gradient).abs() <= 3 * numerical.bar

        assert bool(inside.all()), f"{name}: an entry lies outside three error bars"


def test_check_passes_a_healthy_model_and_says_what_it_would_have_seen():
    report = cr.check(cr.Setup(Classifier(), cross_entropy, [batch()]))

    assert "pass" == report.verdict, str(report)
    assert "an error of " in " ".join(str(report).split())  # wherever the line breaks


def test_check_fails_a_wrong_backward_and_names_its_place():
    class HalfTanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * (1 - y * y) / 2

    class Broken(Classifier):
        def forward(self, x_BD):
            return self.out(HalfTanh.apply(self.norm(self.hidden(x_BD))))

    report = cr.check(cr.Setup(Broken(), cross_entropy, [batch()]))
    (finding,) = report.findings

    assert ("fail", "gradient-mismatch") == (report.verdict, finding.check)
    assert "HalfTanh.apply" in finding.source.code
    assert "half the chain rule's" in finding.message
