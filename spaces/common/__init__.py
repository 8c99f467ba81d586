"""Small values that all other folders of `spaces` use."""
