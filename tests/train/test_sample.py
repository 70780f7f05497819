"""A continuation with the cache of keys and values is the one without; temperature, top-k and top-p keep what they say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.tokenizer import byte_tokenizer
from chainrule.models.cache import Cache
from chainrule.train.config import SampleConfig
from chainrule.train.sample import continuation, continued, draw, most_probable, next_logits, nucleus
from small_transformers import VARIANTS, make

CONTEXT = 6


def without_cache(model, prompt, config, seed):
    """The same by reading everything anew for each token."""
    generator = torch.Generator().manual_seed(seed)
    tokens, start = list(prompt), max(0, len(prompt) - CONTEXT)
    for _ in range(config.tokens):
        if len(tokens) - start > CONTEXT:
            start = len(tokens) - CONTEXT // 2
        logits_V = model(torch.tensor([tokens[start:]]))[0, -1]
        tokens.append(draw(logits_V.double(), config, generator))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_logits_with_the_cache_are_those_without_to_rounding(name):
    model, tokens = make(**VARIANTS[name]).double().eval(), torch.randint(11, (CONTEXT,)).tolist()
    cache, parts = Cache(), ([0, 1, 2], [3], [4, 5])
    cached = [next_logits(model, [tokens[place] for place in part], cache) for part in parts]
    whole = model(torch.tensor([tokens]))[0]

    torch.testing.assert_close(whole[[2, 3, 5]], torch.stack(cached), rtol=1e-12, atol=1e-14)
    assert CONTEXT == cache.length


@pytest.mark.parametrize("name", ["gpt2", "llama", "sinusoidal"])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_the_same_tokens_are_drawn_with_the_cache_and_without_also_when_the_context_is_full(name, length):
    model = make(**VARIANTS[name]).double().eval()
    prompt, config = torch.randint(11, (length,)).tolist(), SampleConfig(tokens=25, temperature=1.0, top_k=7, top_p=0.9)

    assert without_cache(model, prompt, config, seed=3) == continuation(model, prompt, CONTEXT, config, seed=3)


def test_a_cache_costs_one_query_a_token():
    model, lengths = make(), []
    model.tokens.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    continuation(model, [1, 2, 3], CONTEXT, SampleConfig(tokens=5), seed=0)

    assert [3, 1, 1, 1, 3] == lengths  # the context of 6 is full: the newer half is read anew


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(0.05, 1.0))
def test_the_nucleus_is_the_smallest_set_of_that_probability(logits, p):
    logits_V = torch.tensor(logits, dtype=torch.float64)
    probability_V = logits_V.softmax(0)
    kept_V = nucleus(logits_V, p).isfinite()
    kept = probability_V[kept_V]

    assert kept.sum() >= p - 1e-9
    assert p >= 1 or kept.sum() - kept.min() < p + 1e-9
    assert not (~kept_V).any() or probability_V[~kept_V].max() <= kept.min()


@given(st.permutations(range(8)), st.integers(0, 10))
def test_top_k_keeps_the_k_largest(logits, k):
    kept_V = most_probable(torch.tensor(logits, dtype=torch.float64), k).isfinite()

    assert (min(k, 8) or 8) == kept_V.sum()
    assert not k or {7 - place for place in range(min(k, 8))} == {logits[place] for place in kept_V.nonzero()}


def test_of_equal_logits_no_more_than_k_are_kept():
    assert 2 == most_probable(torch.zeros(5), 2).isfinite().sum()


def test_a_sample_leaves_the_mode_and_every_generator_as_they_were():
    model, before = make(dropout=0.5).train(), torch.get_rng_state()
    one, two = (continuation(model, [1], CONTEXT, SampleConfig(tokens=9), seed=4) for _ in range(2))

    assert one == two
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_half_a_character_before_and_half_after_the_cut_are_one():
    class Second(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, tokens_BT, cache):
            logits_BTV = torch.zeros(*tokens_BT.shape, 257)
            logits_BTV[..., "é".encode()[1]] = 1.0
            return logits_BTV

    settings = SampleConfig(tokens=1, temperature=0.0)
    before, after = continued(Second(), byte_tokenizer(), b"caf" + "é".encode()[:1], 9, settings, seed=0)

    assert "café" == "caf" + after
    assert "caf" == before
