"""Bring a store up to date with its inputs: they are decoded ahead by workers, encoded in slices, committed in groups.

Every input ends as done, or as failed with its reason. A run that stops, for whatever reason, leaves the store as of
the last committed group; the same call goes on from there and skips what is in it without decoding.
"""
