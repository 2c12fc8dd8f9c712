"""Scoring kernels for bags of embeddings; ``tai_kernels.ops`` is the only door."""
