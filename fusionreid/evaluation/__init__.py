"""Evaluation (Sec. IV.A and IV.E): features, exact ranking, re-ranking, and maps of where models look."""
