"""A continuation of a prompt, token by token, drawn by a private generator."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from chainrule.train.config import SampleConfig


@torch.no_grad()
def continuation(model: nn.Module, prompt: list[int], context: int, config: SampleConfig, seed: int) -> list[int]:
    """Token ids that follow `prompt`; the model sees the last `context` tokens. Leaves the model's mode as it was."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    tokens = list(prompt)
    was_training = model.training
    model.eval()
    try:
        for _ in range(config.tokens):
            logits_V = model(torch.tensor([tokens[-context:]], device=device))[0, -1]
            tokens.append(draw(logits_V.double().cpu(), config, generator))
    finally:
        model.train(was_training)
    return tokens[len(prompt) :]


def draw(logits_V: Tensor, config: SampleConfig, generator: torch.Generator) -> int:
    """One token: the most probable at temperature 0, else from softmax(logits / temperature) of the best `top_k`."""
    if config.temperature == 0:
        return int(logits_V.argmax())
    if 0 < config.top_k < len(logits_V):
        least = logits_V.topk(config.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    probabilities_V = (logits_V / config.temperature).softmax(dim=-1)
    return cast(int, torch.multinomial(probabilities_V, 1, generator=generator).item())
