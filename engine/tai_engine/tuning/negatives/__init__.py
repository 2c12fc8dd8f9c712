"""Sentences that are easily mistaken for a class, found by exact search."""
