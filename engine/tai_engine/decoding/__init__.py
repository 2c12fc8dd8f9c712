"""Pictures as bytes to pixels, in processes that may crash."""
