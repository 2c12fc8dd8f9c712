"""Training and evaluation of the small CLIP that ships with the engine."""
