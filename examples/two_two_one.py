"""The smallest network: 2 inputs, 2 hidden neurons, 1 output, all sigmoid, squared error; every derivative by its name.

Each unit formula is differentiated alone by three engines that share no code; then the chain rule is plain products.
Expected output:
derivative              autograd        chain rule         numerical
d_L_d_ypred      -0.952609651832   -0.952609651832   -0.952609651832
d_ypred_d_w5      0.011829840503    0.011829840503    0.011829840503
d_ypred_d_w6      0.011829840503    0.011829840503    0.011829840503
d_ypred_d_b3      0.249438538725    0.249438538725    0.249438538725
d_ypred_d_h1      0.249438538725    0.249438538725    0.249438538725
d_ypred_d_h2      0.249438538725    0.249438538725    0.249438538725
d_h1_d_w1        -0.090353319462   -0.090353319462   -0.090353319462
d_h1_d_w2        -0.045176659731   -0.045176659731   -0.045176659731
d_h1_d_b1         0.045176659731    0.045176659731    0.045176659731
d_h2_d_w3        -0.090353319462   -0.090353319462   -0.090353319462
d_h2_d_w4        -0.045176659731   -0.045176659731   -0.045176659731
d_h2_d_b2         0.045176659731    0.045176659731    0.045176659731
d_L_d_w1          0.021469535266    0.021469535266    0.021469535266
d_L_d_w2          0.010734767633    0.010734767633    0.010734767633
d_L_d_w3          0.021469535266    0.021469535266    0.021469535266
d_L_d_w4          0.010734767633    0.010734767633    0.010734767633
d_L_d_w5         -0.011269220243   -0.011269220243   -0.011269220243
d_L_d_w6         -0.011269220243   -0.011269220243   -0.011269220243
d_L_d_b1         -0.010734767633   -0.010734767633   -0.010734767633
d_L_d_b2         -0.010734767633   -0.010734767633   -0.010734767633
d_L_d_b3         -0.237617559528   -0.237617559528   -0.237617559528
d_L_d_w1 = d_L_d_ypred · d_ypred_d_h1 · d_h1_d_w1 = 0.021469535266
"""

import torch
from torch import Tensor, nn, sigmoid

import chainrule as cr

FORMULAS = {
    "h1": lambda v: sigmoid(v["w1"] * v["x1"] + v["w2"] * v["x2"] + v["b1"]),
    "h2": lambda v: sigmoid(v["w3"] * v["x1"] + v["w4"] * v["x2"] + v["b2"]),
    "ypred": lambda v: sigmoid(v["w5"] * v["h1"] + v["w6"] * v["h2"] + v["b3"]),
    "L": lambda v: (v["ytrue"] - v["ypred"]) ** 2,
}
INPUTS = {"L": ["ypred"], "ypred": ["w5", "w6", "b3", "h1", "h2"], "h1": ["w1", "w2", "b1"], "h2": ["w3", "w4", "b2"]}
BATCH = {"x1": torch.tensor(-2.0), "x2": torch.tensor(-1.0), "ytrue": torch.tensor(1.0)}
WEIGHTS = {f"w{i}": 1.0 for i in range(1, 7)} | {f"b{i}": 0.0 for i in range(1, 4)}


class Formulas(nn.Module):
    """Formulas, one after the other, as a model whose parameters are the values that are given."""

    def __init__(self, names: list[str], given: dict[str, float]) -> None:
        super().__init__()
        self.names = names
        self.given = nn.ParameterDict({name: torch.tensor(value, dtype=torch.float64) for name, value in given.items()})

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        values = {**batch, **self.given}
        for name in self.names:
            values[name] = FORMULAS[name](values)
        return values


def derivatives(names: list[str], given: dict[str, float]) -> dict[str, list[float]]:
    """{"d_L_d_w1": [by autograd, by the chain rule, numerically], ...}: the last formula by every given value."""
    model, last = Formulas(names, given), names[-1]
    graph = cr.capture(model, lambda model, batch: model(batch)[last], BATCH)
    by_autograd = torch.autograd.grad(model(BATCH)[last], [model.given[name] for name in given])
    by_chain_rule = cr.value_and_grad(graph)[1]
    numerical = [cr.numerical_gradient(graph, f"given.{name}").gradient for name in given]
    three = zip(given, by_autograd, [by_chain_rule[f"given.{name}"] for name in given], numerical, strict=True)
    return {f"d_{last}_d_{name}": [engine.item() for engine in engines] for name, *engines in three}


def main() -> None:
    """The local derivatives, a formula at a time; then the whole network's, which must be their products."""
    values = {name: value.item() for name, value in Formulas(list(FORMULAS), WEIGHTS)(BATCH).items()}
    local: dict[str, list[float]] = {}
    for formula, names in INPUTS.items():
        local |= derivatives([formula], {name: values[name] for name in names})
    whole = derivatives(list(FORMULAS), WEIGHTS)
    print(f"{'derivative':14}{'autograd':>18}{'chain rule':>18}{'numerical':>18}")
    for name, engines in (local | whole).items():
        print(f"{name:14}" + "".join(f"{value:18.12f}" for value in engines))
    product = local["d_L_d_ypred"][1] * local["d_ypred_d_h1"][1] * local["d_h1_d_w1"][1]
    print(f"d_L_d_w1 = d_L_d_ypred · d_ypred_d_h1 · d_h1_d_w1 = {product:.12f}")


if __name__ == "__main__":
    main()
