"""Layers of image towers for CPUs."""
