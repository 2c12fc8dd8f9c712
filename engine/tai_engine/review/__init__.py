"""What people decide about tags: the journal of decisions, the page to make them on, and the page to show them."""
