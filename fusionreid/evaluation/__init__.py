"""Evaluation (Sec. IV.A and IV.E): features, exact ranking and re-ranking, and maps of where the model looks."""
