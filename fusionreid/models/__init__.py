"""The networks (Sec. III): branches and fusion, their weights and checkpoints, their costs."""
