"""Loss terms: each formula is implemented once, with its citation."""
