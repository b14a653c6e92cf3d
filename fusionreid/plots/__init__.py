"""Every picture of the notebooks, in one style."""
