"""The derivative rules of all unit formulas, a file per family, merged and read-only."""
