"""How items become arrays and commit records."""
