"""A continuation of a prompt, token by token, drawn by a private generator.

    V vocabulary

The model reads each token once: keys and values of the tokens before are kept. When its context is full the older half
is forgotten and the rest read anew, since every position has changed; so between half and all of the context is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from chainrule.models.cache import Cache
from chainrule.train.config import SampleConfig


def continued(
    model: nn.Module, tokenizer: Tokenizer, prompt: Sequence[int], context: int, config: SampleConfig, seed: int
) -> tuple[str, str]:
    """(the prompt's text, the text that follows it); a character that begins in the prompt's last bytes is of the second."""
    following = continuation(model, prompt, context, config, seed)
    whole, alone = (tokenizer.decode(ids, skip_special_tokens=False) for ids in ([*prompt, *following], list(prompt)))
    before = commonprefix([whole, alone])  # noqa: RUF071  of texts, not of paths
    return before, whole[len(before) :]


@torch.no_grad()
def continuation(model: nn.Module, prompt: Sequence[int], context: int, config: SampleConfig, seed: int) -> list[int]:
    """Token ids that follow `prompt`, whose last `context` tokens are read. Leaves the model's mode as it was."""
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    start, cache = max(0, len(tokens) - context), Cache()
    was_training = model.training
    model.eval()
    try:
        for _ in range(config.tokens):
            if len(tokens) - start > context:
                start, cache = len(tokens) - max(1, context // 2), Cache()
            logits_V = next_logits(model, tokens[start + cache.length :], cache)
            tokens.append(draw(logits_V.double().cpu(), config, generator))
    finally:
        model.train(was_training)
    return tokens[len(prompt) :]


def next_logits(model: nn.Module, unread: Sequence[int], cache: Cache) -> Tensor:
    """Logits of the token after the `unread` ones, which follow those in the cache."""
    device = next(model.parameters()).device
    logits_V: Tensor = model(torch.tensor([list(unread)], device=device), cache=cache)[0, -1]
    return logits_V


def draw(logits_V: Tensor, config: SampleConfig, generator: torch.Generator) -> int:
    """One token: the most probable at temperature 0, else from softmax(logits / temperature) of those that are kept."""
    if config.temperature == 0:
        return int(logits_V.argmax())
    logits_V = nucleus(most_probable(logits_V / config.temperature, config.top_k), config.top_p)
    return cast(int, torch.multinomial(logits_V.softmax(dim=-1), 1, generator=generator).item())


def most_probable(logits_V: Tensor, k: int) -> Tensor:
    """Keep the k largest logits (all for k = 0); the others become -inf."""
    if not 0 < k < len(logits_V):
        return logits_V
    kept = logits_V.topk(k)
    return torch.full_like(logits_V, -torch.inf).scatter(0, kept.indices, kept.values)


def nucleus(logits_V: Tensor, p: float) -> Tensor:
    """Keep the fewest most probable tokens whose probabilities sum to p or more (Holtzman et al. 2020, section 3.1)."""
    if p >= 1:
        return logits_V
    probability_V, order_V = logits_V.softmax(dim=-1).sort(descending=True)
    enough_before_V = probability_V.cumsum(dim=-1) - probability_V >= p
    dropped_V = torch.zeros_like(enough_before_V).scatter(0, order_V, enough_before_V)
    return logits_V.masked_fill(dropped_V, -torch.inf)
