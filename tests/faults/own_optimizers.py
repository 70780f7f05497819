"""Optimizers as people write them themselves, each with the slips that were reported of such classes."""

from __future__ import annotations

import torch
from torch.optim import Optimizer


class Own(Optimizer):
    """The frame of all of them: state made at the first step, one parameter at a time; `slip` "" is the repaired twin."""

    def __init__(self, params, slip="", **defaults):
        super().__init__(params, defaults)
        self.slip = slip

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p], group)


class MyAdamW(Own):
    def update(self, p, g, state, group):
        lr, (beta1, beta2), eps, decay = group["lr"], group["betas"], group["eps"], group["weight_decay"]
        if not state:
            state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        state["t"] += 1
        t, m, v = state["t"], state["m"], state["v"]
        if self.slip == "coupled":
            g = g + decay * p
        elif self.slip == "sign":
            p.add_(p, alpha=lr * decay)
        elif self.slip == "constant":
            p.sub_(lr * decay)
        elif self.slip not in ("after", "ignored"):
            p.mul_(1 - (decay if self.slip == "unscaled" else lr * decay))
        if self.slip == "betas":
            beta1, beta2 = beta2, beta1
        one_for_all = self.slip == "block" and p.numel() >= 4096
        g2 = g.pow(2).mean().expand_as(g) if one_for_all else g * g
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).add_(g2, alpha=1 - beta2)
        bias1, bias2 = 1 - beta1**t, 1 - beta2**t
        if self.slip == "first":
            bias2 = 1.0
        if self.slip == "epsilon":
            p.addcdiv_(m, v.sqrt().add_(eps), value=-lr * bias2**0.5 / bias1)
        else:
            p.addcdiv_(m / bias1, (v / bias2).sqrt().add_(eps), value=-lr)
        if self.slip == "after":
            p.add_(p, alpha=-lr * decay)


class MySGD(Own):
    def update(self, p, g, state, group):
        g = g + group["weight_decay"] * p if self.slip != "sign" else g - group["weight_decay"] * p
        scale = group["lr"] if self.slip == "rate inside" else 1.0
        buffer = state.get("buffer")
        state["buffer"] = scale * g if buffer is None else group["momentum"] * buffer + scale * g
        p.add_(state["buffer"], alpha=-1.0 if self.slip == "rate inside" else -group["lr"])


class Lion(Own):
    def update(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        m = state.setdefault("m", torch.zeros_like(p))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * torch.sign(beta1 * m + (1 - beta1) * g))
        m.mul_(beta1 if self.slip else beta2).add_(g, alpha=1 - (beta1 if self.slip else beta2))


class Muon(Own):
    def update(self, p, g, state, group):
        b = state.setdefault("b", torch.zeros_like(p))
        if self.slip == "order":
            b.mul_(group["momentum"]).add_(self.orthogonal(g, group["ns_steps"]))
            step = b
        else:
            b.mul_(group["momentum"]).add_(g)
            step = self.orthogonal(g + group["momentum"] * b, group["ns_steps"])
        factor = 1.0 if self.slip == "factor" else max(1, p.size(0) / p.size(1)) ** 0.5
        p.add_(step, alpha=-group["lr"] * factor)

    @staticmethod
    def orthogonal(g, steps):
        a, b, c = 3.4445, -4.7750, 2.0315
        x = g.bfloat16()
        x = x.mT if g.size(0) > g.size(1) else x
        x = x / (x.norm() + 1e-7)
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if g.size(0) > g.size(1) else x).to(g.dtype)


class Adafactor(Own):
    def update(self, p, g, state, group):
        if not state:
            state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
            state.update(row=torch.zeros(p.shape[:-1]).to(p), column=torch.zeros(p.shape[:-2] + p.shape[-1:]).to(p))
        state["t"] += 1
        rate, beta2 = group["lr"], 1 - state["t"] ** group["decay_rate"]
        square = g * g + group["eps"][0]
        if p.ndim < 2:
            state["v"].mul_(beta2).add_(square, alpha=1 - beta2)
            u = g * state["v"].rsqrt()
        else:
            row = state["row"].mul_(beta2).add_(square.mean(-1), alpha=1 - beta2)
            column = state["column"].mul_(beta2).add_(square.mean(-2), alpha=1 - beta2)
            u = g * (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1) * column.rsqrt().unsqueeze(-2)
        u = u / (u.pow(2).mean().sqrt() / group["clip_threshold"]).clamp(min=1.0)
        beta1 = group["beta1"]
        state["m"].mul_(beta1).add_(u * rate if self.slip else u, alpha=1 - beta1)
        p.add_(p, alpha=-group["weight_decay"] * rate)
        p.sub_(state["m"] if self.slip else rate * state["m"])


class OnACopy(Own):
    """Plain gradient descent that assigns a new tensor where it should write into the old one."""

    def update(self, p, g, state, group):
        if self.slip == "new tensor":
            p = p - group["lr"] * g
        elif self.slip == "state":
            state.setdefault("master", p.clone()).sub_(group["lr"] * g)
        elif self.slip == "seen once":  # which parameters have gradients is looked up in the first step only
            self.seen = getattr(self, "seen", None) or {
                id(q) for group in self.param_groups for q in group["params"][:2]
            }
            if id(p) in self.seen:
                p.sub_(group["lr"] * g)
        else:
            p.sub_(group["lr"] * g)
