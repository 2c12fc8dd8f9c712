"""Class names and learned contexts to class vectors, ready to be scored."""
