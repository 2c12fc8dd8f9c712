"""Pictures of a store found by words, or by a picture that they are like."""
