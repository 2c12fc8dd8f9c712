"""Where a store lies, what is asked of such a place, and who may write there."""
