"""Fused coarse and fine scores, pooled over bags of rows."""
