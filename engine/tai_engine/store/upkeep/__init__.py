"""Looking after a store that is there: verify, repair, compact."""
