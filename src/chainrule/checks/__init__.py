"""Checks: each looks at a user's set-up for one fault and returns what it did and what it found; a file per fault."""
