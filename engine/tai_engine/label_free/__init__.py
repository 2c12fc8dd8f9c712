"""Better class vectors without a labelled picture: compound prompts, sentences, the patches of the collection."""
