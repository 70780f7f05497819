from pathlib import Path

from chainrule.derivatives import FAMILIES, FLAT, RULES
from chainrule.derivatives.rule import merge

# What 22 common models put on the gradient path, and the ops beyond them that a user soon meets.
COMMON = """native_batch_norm _unsafe_view abs adaptive_avg_pool2d add addmm alias bmm broadcast_tensors cat clone conv1d
conv2d cross_entropy_loss div embedding exp expand gelu gru index layer_norm linear log_sigmoid lstm matmul max_pool2d
mean mse_loss mul native_dropout neg permute pow relu repeat_interleave rsqrt scaled_dot_product_attention select
sigmoid silu slice softmax softplus split squeeze stack sum tanh topk transpose type_as unsqueeze view where"""
MARGIN = """_to_copy sub pad gather scatter_add index_put cumsum log sqrt var logsumexp masked_fill group_norm rms_norm
nll_loss binary_cross_entropy kl_div huber_loss embedding_bag amax amin clamp maximum minimum erf sin cos elu leaky_relu
tril"""
TOOLS = {"__init__", "rule", "tangents", "pointwise"}


def test_every_family_has_a_test_file_of_its_name() -> None:
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {family.__name__.rpartition(".")[2] for family in FAMILIES} - tested - {"recurrent_cell"} == set()


def test_every_file_with_rules_is_merged() -> None:
    files = {path.stem for path in Path(str(FAMILIES[0].__file__)).parent.glob("*.py")}
    assert files - TOOLS == {family.__name__.rpartition(".")[2] for family in FAMILIES}


def test_the_ops_of_common_models_have_rules() -> None:
    names = {str(op).split(".")[1] for op in RULES}
    assert [name for name in f"{COMMON} {MARGIN}".split() if name not in names] == []


def test_there_is_a_wide_margin_of_rules() -> None:
    assert len({str(op).split(".")[1] for op in RULES}) >= 200


def test_a_formula_says_what_an_output_is() -> None:
    assert {str(op): rule.formula for op, rule in RULES.items() if "=" not in rule.formula} == {}


def test_the_merged_table_is_whole_and_read_only() -> None:
    rules, flat = merge(family.rules for family in FAMILIES)
    assert rules.keys() == RULES.keys()
    assert flat == FLAT
    assert not hasattr(RULES, "__setitem__")
