"""What `metrics` and `rerank` are made of: distances by blocks, counting instead of sorting, the protocol."""
