"""Image towers rewritten for speed, each compared with the plain one before it is used."""
