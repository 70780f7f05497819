"""The gradient checks, cheap to dear: each proves what the next relies on."""
