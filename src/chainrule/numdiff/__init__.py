"""Derivatives without calculus: finite differences of plain callables, with error bars and measured noise."""
