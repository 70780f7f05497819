"""All planted backward faults: kinds of mistake, and the modules of the host where each is planted."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from faults.backward import generic as g
from faults.backward import specific as s
from faults.backward.formula import Wrong
from faults.backward.plant import Plant

LINEAR, SQUARE, NORM = "blocks.1.mlp.up", "blocks.2.attention.out", "blocks.2.norm2"
GELU, RELU, CHUNKED = "blocks.2.mlp.act", "blocks.1.mlp.act", "blocks.3.mlp.act"
SOFTMAX, BLEND, CORE = "blocks.1.attention.core.softmax", "blocks.3.attention.core.blend", "blocks.2.attention.core"
GATE, SPLIT, DROP = "blocks.3.mlp.gate", "blocks.0.mlp.split", "blocks.0.mlp.drop"
SHIFT, SCALE, EMBED, POSITION, LOSS = "blocks.0.shift", "blocks.1.scale", "embed", "position", "criterion"
WIDE = (torch.float64, torch.float32)

# (kind, site, module, wrong backward): mistakes of one formula.
SPECIFIC: tuple[tuple[str, str, str, Wrong], ...] = (
    ("bias gradient of one row", "linear", LINEAR, s.bias_of_first_row),
    ("only the last block accumulated", "linear", LINEAR, s.weight_of_first_half),
    ("output for input", "linear", SQUARE, s.weight_by_output),
    ("weight not transposed", "linear", SQUARE, s.weight_not_transposed),
    ("missing un-broadcast", "position", POSITION, s.broadcast_not_summed),
    ("mean for sum over the batch", "position", POSITION, s.broadcast_averaged),
    ("wrong axis in a reduction", "scale", SCALE, s.scale_summed_over_batch_only),
    ("layer norm without mean term", "norm", NORM, s.without_mean_term),
    ("layer norm without variance term", "norm", NORM, s.without_variance_term),
    ("double count", "norm", NORM, s.mean_term_twice),
    ("missing 1/n", "norm", NORM, s.sums_for_means),
    ("n - 1 for n", "norm", NORM, s.unbiased_variance),
    ("wrong eps", "norm", NORM, s.eps_of_another_layer),
    ("raw input for normalised", "norm", NORM, s.weight_by_raw_input),
    ("derivative of the other gelu", "activation", GELU, s.other_gelu),
    ("dropped term", "activation", GELU, s.gelu_without_density_term),
    ("wrong only for large inputs", "activation", GELU, s.saturated_for_large_input),
    ("mask of the wrong sign", "activation", RELU, s.mask_of_wrong_sign),
    (">= for >", "activation", RELU, s.mask_not_strict),
    ("missing softmax coupling", "softmax", SOFTMAX, s.without_coupling),
    ("wrong axis in a reduction", "softmax", SOFTMAX, s.coupling_over_wrong_axis),
    ("causal mask missing in backward", "attention", CORE, s.without_causal_mask),
    ("1/sqrt(d) forgotten", "attention", CORE, s.without_scale),
    ("wrong 1/sqrt(d)", "attention", CORE, s.scale_of_full_width),
    ("swapped inputs of equal shape", "attention", CORE, s.query_and_key_exchanged),
    ("swapped inputs of equal shape", "gate", GATE, s.inputs_exchanged),
    ("swapped outputs", "split", SPLIT, s.outputs_exchanged),
    ("off by one along time", "shift", SHIFT, s.shifted_forwards),
    ("repeated tokens not accumulated", "embedding", EMBED, s.repeats_not_accumulated),
    ("padding row kept", "embedding", EMBED, s.padding_row_kept),
    ("off by one row", "embedding", EMBED, s.next_row),
    ("dropout scale forgotten", "dropout", DROP, s.keep_scale_forgotten),
    ("dropout scaled by p", "dropout", DROP, s.scaled_by_p),
    ("dropout mask forgotten", "dropout", DROP, s.mask_forgotten),
    ("dropout mask drawn again", "dropout", DROP, s.mask_drawn_again),
    ("without -1 at the target", "loss", LOSS, s.without_minus_one),
    ("sum for mean", "loss", LOSS, s.sum_for_mean),
    ("mean over ignored targets too", "loss", LOSS, s.mean_over_all),
    ("label smoothing forgotten", "loss", LOSS, s.smoothing_forgotten),
    ("dropped term", "loss", LOSS, s.z_term_dropped),
    ("ignored rows kept", "loss", LOSS, s.ignored_rows_kept),
    ("ignored grad_output", "activation", GELU, g.ignores_g),
    ("ignored grad_output", "gate", GATE, g.ignores_g),
    ("stale saved tensors", "activation", CHUNKED, g.stale),
    ("gradient of the call before mixed in", "activation", CHUNKED, g.momentum),
)

# (kind, change): mistakes of any formula; and where each is planted: (site, module, argument).
Place = tuple[str, str, int]
ACT, WEIGHT, SQUARE_WEIGHT = ("activation", GELU, 0), ("linear", LINEAR, 1), ("linear", SQUARE, 1)
INTO_NORM, INTO_SOFTMAX, INTO_CORE = ("norm", NORM, 0), ("softmax", SOFTMAX, 0), ("attention", CORE, 0)
VALUE, TABLE, LOGITS, GATED = ("attention", CORE, 2), ("embedding", EMBED, 0), ("loss", LOSS, 0), ("gate", GATE, 1)
ANYWHERE: tuple[Place, ...] = (WEIGHT, INTO_NORM, ACT, INTO_SOFTMAX, INTO_CORE, TABLE, LOGITS, GATED)
GENERIC: tuple[tuple[str, g.Change, tuple[Place, ...]], ...] = (
    ("scale 0.5", g.half, ANYWHERE),
    ("scale 1.001", g.a_thousandth_more, ANYWHERE),
    ("sign", g.negative, ANYWHERE),
    ("zero gradient", g.zero, (WEIGHT, INTO_NORM, ACT, VALUE)),
    ("noise", g.noisy, (WEIGHT, INTO_NORM, ACT, INTO_SOFTMAX, LOGITS)),
    ("one wrong entry", g.one_entry, (WEIGHT, INTO_NORM, ACT, INTO_CORE, TABLE, LOGITS)),
    ("one wrong row", g.one_row, (WEIGHT, INTO_NORM, INTO_SOFTMAX, TABLE)),
    ("one wrong column", g.one_column, (WEIGHT, INTO_NORM, INTO_SOFTMAX, LOGITS)),
    ("wrong at the last position", g.without_last_position, (ACT, INTO_NORM, GATED)),
    ("wrong in the last example", g.without_last_example, (ACT, INTO_NORM, GATED)),
    ("wrong for odd sizes", g.misaligned_if_odd, (ACT, INTO_NORM, ("shift", SHIFT, 0))),
    ("off by one along time", g.shifted, (ACT, INTO_NORM)),
    ("clipped inside backward", g.clipped, (WEIGHT, ACT, INTO_SOFTMAX)),
    ("transposed gradient", g.transposed, (SQUARE_WEIGHT,)),
    ("mean for sum", g.without_average, (("linear", LINEAR, 2), ("norm", NORM, 1))),
    ("half of the width never written", g.upper_half_only, (WEIGHT, INTO_NORM)),
)

# Mistakes that have one size only, or are none in bfloat16.
NATURAL: tuple[Plant, ...] = (
    Plant("scale 1 + 1e-6", "activation", GELU, g.on(g.a_millionth_more), False, (torch.float64,)),
    Plant("scale 1 + 1e-6", "linear", LINEAR, g.on(g.a_millionth_more, 1), False, (torch.float64,)),
    Plant("rounded to bfloat16 inside", "activation", GELU, g.on(g.rounded_to_bfloat16), False, WIDE),
    Plant("rounded to bfloat16 inside", "softmax", SOFTMAX, g.on(g.rounded_to_bfloat16), False, WIDE),
    Plant("detached path", "gate", GATE, g.nothing_for(1), False),
    Plant("detached path", "attention", CORE, g.nothing_for(2), False),
    Plant("detached path", "linear", LINEAR, g.nothing_for(1), False),
    Plant("one buffer for every call", "activation", CHUNKED, g.one_buffer, False),
    Plant("grad_output overwritten", "scale", SCALE, g.overwrites_g, False, victims=("blocks.1",)),
    Plant(
        "saved tensor overwritten",
        "blend",
        BLEND,
        g.overwrites_saved,
        False,
        victims=("blocks.3.attention.core.softmax",),
    ),
)


def generic_plants() -> Iterator[Plant]:
    for kind, change, places in GENERIC:
        for site, module_path, argument in places:
            yield Plant(kind, f"{site}[{argument}]" if argument else site, module_path, g.on(change, argument))


PLANTS: tuple[Plant, ...] = (*(Plant(*row) for row in SPECIFIC), *generic_plants(), *NATURAL)
