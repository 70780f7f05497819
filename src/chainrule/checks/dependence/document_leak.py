"""document-leak: texts that are packed into one row see each other.

What it checks
    With several documents in a row, as position_ids that start again at 0 or ids of documents say: the gradient of a
    document's outputs with respect to the inputs of the others is zero.
Why it matters
    Packing fills rows with short texts. Without a mask by blocks, each text is read as the continuation of a stranger's;
    what is learned from its first tokens is noise, and answers depend on what happened to be packed before.
How it decides
    Gaussian cotangents on the last document of each row, pulled back to the embeddings; the others' part must be below
    100 u of float32 of the whole. Always a warning: some recipes let documents see each other on purpose.
Broken
    F.scaled_dot_product_attention(q, k, v, is_causal=True)
Repaired
    F.scaled_dot_product_attention(q, k, v, attn_mask=causal & (document[:, :, None] == document[:, None])[:, None])
Limits
    Only if the model is given (B, T) integers whose name holds "position" and that start again, or whose name holds
    "document", "doc_id" or "seq_id" and that change along a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.copies import Copies
from chainrule.checks.dependence.arguments import arguments_of
from chainrule.checks.dependence.locate import ROUNDING, leaking_module, mixing_line
from chainrule.checks.dependence.taps import Alter, Run, gradients_of, in_each_mode, on_tapped_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "document-leak"
_DOCUMENTS = ("document", "doc_id", "seq_id")  # not "segment": BERT's two segments are to see each other


def check(subject: Subject) -> Outcome:
    """At most one finding, in the first mode in which documents see each other."""
    return on_tapped_copies(subject, _look)


def _look(subject: Subject, copies: Copies) -> Outcome:
    found = [(name, d) for name, t in arguments_of(copies).items() if (d := documents(name, t)) is not None]
    if not found:
        return NotRun("the model is given no documents packed into a row")
    name, document_BT = found[0]

    def seen(result: Run, mode: str) -> Outcome:
        if result.output.dim() < 3 or result.output.shape[:2] != document_BT.shape:
            return NotRun("the model's output has no axis of positions")
        ratio = _ratio(subject, result, document_BT)
        return [_finding(subject, copies, name, document_BT, ratio, mode)] if ratio > ROUNDING else []

    return in_each_mode(copies, seen, "")


def documents(name: str, tensor: Tensor) -> Tensor | None:
    """Number of the document of each position, (B, T); None if the argument says nothing of documents."""
    if tensor.dim() != 2 or tensor.is_floating_point() or tensor.dtype is torch.bool or tensor.shape[1] < 2:
        return None
    if "position" in name.lower():
        return _several((tensor[:, 1:] <= tensor[:, :-1]) & (tensor[:, 1:] == 0))
    if any(word in name.lower() for word in _DOCUMENTS):
        return _several(tensor[:, 1:] != tensor[:, :-1])
    return None


def _several(begins: Tensor) -> Tensor | None:
    first = torch.zeros_like(begins[:, :1])
    numbers = torch.cat([first, begins], dim=1).cumsum(1)
    return numbers if bool(numbers.any()) else None


def _is_last(document_BT: Tensor) -> Tensor:
    return document_BT == document_BT[:, -1:]


def _ratio(subject: Subject, result: Run, document_BT: Tensor) -> float:
    """The other documents' share of the gradient of each row's last document."""
    last_BT = _is_last(document_BT)
    cotangent = torch.randn(result.output.shape, generator=subject.generator(47)).to(result.output)
    cotangent[~last_BT] = 0
    taps = [i for i, tap in enumerate(result.taps) if tap.value.shape[:2] == document_BT.shape and tap.value.dim() > 2]
    gradients = gradients_of(result, cotangent)
    norms = [gradients[i].float().flatten(2).norm(dim=2) for i in taps]
    return max((float(n[~last_BT].norm() / n.norm()) for n in norms if float(n.norm()) > 0), default=0.0)


def _finding(subject: Subject, copies: Copies, name: str, document_BT: Tensor, ratio: float, mode: str) -> Finding:
    last_BT = _is_last(document_BT)
    module = leaking_module(copies, _others_replaced(subject, last_BT), lambda tensor: _own(tensor, last_BT))
    return Finding(
        check=NAME,
        severity="warning",
        where=module or type(copies.model).__name__,
        source=mixing_line(subject.graph, module) if module is not None else None,
        message=f"a document depends on the others in its row, which {name} sets apart",
        evidence={"ratio": ratio, "argument": name, "mode": mode, "module": module},
        rows=(
            ("gradient from other documents", f"{ratio:.2e}", "of the whole gradient"),
            ("allowed", f"{ROUNDING:.1e}", "100 u of float32; a mask by blocks gives exactly 0"),
        ),
        notes=("Mask attention by blocks, and reset recurrent states, where a document begins.",),
        reproduce=subject.reproduce(NAME),
    )


def _others_replaced(subject: Subject, last_BT: Tensor) -> Alter:
    def alter(tensor: Tensor, _: Tensor | None) -> Tensor:
        if tensor.dim() < 3 or tensor.shape[:2] != last_BT.shape:
            return tensor
        noise = torch.randn(tensor.shape, generator=subject.generator(48)).to(tensor) * tensor.detach().std()
        return tensor + noise * (~last_BT)[:, :, None].to(tensor)

    return alter


def _own(tensor: Tensor, last_BT: Tensor) -> Tensor | None:
    return tensor[last_BT] if tensor.dim() >= 2 and tensor.shape[:2] == last_BT.shape else None
