"""Published figures, one protocol each, reproduced with one command."""
