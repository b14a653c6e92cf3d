"""The paper's numbers, its experiments as named variants, and the tables and claims that put ours beside them."""
