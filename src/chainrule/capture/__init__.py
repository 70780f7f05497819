"""From `loss(model, batch)` to the graph of its unit formulas."""

from __future__ import annotations

from chainrule.capture.binding import bind as bind
from chainrule.capture.capturing import capture as capture
from chainrule.capture.promote import promote as promote
from chainrule.capture.tape import Tape as Tape
from chainrule.capture.tape import record as record
