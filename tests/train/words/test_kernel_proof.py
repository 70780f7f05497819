"""Every kernel's step is the gradient of the plain formula, and a wrong one is seen."""

from dataclasses import replace

import numpy as np
import pytest

from chainrule.engines import chain_rule_engine, numerical_engine
from chainrule.train.config_words import WordsConfig
from chainrule.train.engine import autograd
from chainrule.train.words.kernel import make_kernel
from chainrule.train.words.proof import prove
from chainrule.train.words.shape import make_scratch
from small_words import small_corpus, small_shape

MODELS, OBJECTIVES = ("skip-gram", "cbow"), ("negative", "hierarchical", "softmax")
SMALL = WordsConfig(dimensions=10, window=3, sample=0.05, shared_negatives=6)
TOKENS = 160  # more than two blocks: windows reach from one into the next


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def proof_of(corpus, config, engine, name, change=lambda kernel: kernel, tokens=TOKENS):
    vocabulary, words = corpus
    shape, tables = small_shape(config, vocabulary)
    scratch = make_scratch(shape, tables, len(vocabulary), tokens + 1)
    kernel = change(make_kernel(shape))
    return prove(kernel, shape, tables, scratch, len(vocabulary), words.tokens[:tokens], engine, name=name)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_kernels_step_is_the_chain_rules(corpus, model, objective):
    config = replace(SMALL, model=model, objective=objective)

    proof = proof_of(corpus, config, chain_rule_engine(), "chain_rule")

    assert proof.ok, proof
    assert proof.blocks >= 3
    assert max(proof.input_error, proof.output_error) < 3e-6  # the bounds reach 4.2e-6, the errors 5e-7


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_kernels_step_is_autograds_on_other_words(corpus, model, objective, seed):
    vocabulary, words = corpus
    config = replace(SMALL, model=model, objective=objective)
    shape, tables = small_shape(config, vocabulary)
    scratch = make_scratch(shape, tables, len(vocabulary), TOKENS + 1)
    tokens = words.tokens[seed * 500 : seed * 500 + TOKENS]

    assert prove(
        make_kernel(shape), shape, tables, scratch, len(vocabulary), tokens, autograd, name="autograd", seed=seed
    ).ok


def test_the_kernels_step_is_that_of_finite_differences(corpus):
    proof = proof_of(corpus, replace(SMALL, dimensions=3), numerical_engine(), "numerical", tokens=20)

    assert proof.ok, proof


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_factor_of_1_001_in_the_step_of_either_matrix_is_seen(corpus, side):
    def planted(kernel):
        def wrong(inputs, outputs, *rest):
            weights = inputs if side == "input" else outputs
            before = weights.copy()
            result = kernel(inputs, outputs, *rest)
            weights[:] = before + np.float32(1.001) * (weights - before)
            return result

        return wrong

    proof = proof_of(corpus, SMALL, autograd, "autograd", planted)

    assert not proof.ok
    error = {"input": proof.input_error, "output": proof.output_error}[side]
    assert 1e-3 == pytest.approx(error, rel=0.1)
    assert "kernel is not autograd" in str(proof)


def test_a_weight_that_must_not_change_is_seen(corpus):
    def planted(kernel):
        def wrong(inputs, outputs, *rest):
            result = kernel(inputs, outputs, *rest)
            inputs[-16] += np.float32(0.01)  # the last word is none of the first ones
            return result

        return wrong

    assert not proof_of(corpus, SMALL, autograd, "autograd", planted, tokens=20).ok


def test_a_loss_that_is_not_the_formulas_is_seen(corpus):
    def planted(kernel):
        def wrong(*arguments):
            loss, pairs, words = kernel(*arguments)
            return 1.001 * loss, pairs, words

        return wrong

    proof = proof_of(corpus, SMALL, autograd, "autograd", planted)

    assert not proof.ok
    assert 1e-3 == pytest.approx(proof.loss_error, rel=0.01)
