"""Who disagrees, where first, and what kind of mistake it looks like: the engines held against each other."""
