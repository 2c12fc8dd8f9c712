"""Files of sentences to sentences with the classes that they name."""
