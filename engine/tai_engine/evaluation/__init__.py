"""Tags held against the truth."""
