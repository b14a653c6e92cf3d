"""Evaluation (Sec. IV.A and IV.E): features, exact ranking, re-ranking, and explanation."""
