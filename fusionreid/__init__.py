"""FusionReID."""
