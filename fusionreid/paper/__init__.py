"""The paper's numbers, its experiments as named variants, and tables and claims that compare."""
