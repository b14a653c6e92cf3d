"""The networks (Sec. III): the two branches, their fusion, weights and checkpoints for them, and what they cost."""
