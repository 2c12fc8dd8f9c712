"""Published data sets in the folders that their authors ship, read as labelled pictures."""
