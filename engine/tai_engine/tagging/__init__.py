"""A store and a prompt set to scores, tags and files of tags."""
