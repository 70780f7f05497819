"""Observations of a live training loop, the user's or ours: what was called, in which order, with which numbers."""
