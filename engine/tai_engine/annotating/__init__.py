"""The whole way from pictures to annotations, from the parts that the other packages are."""
