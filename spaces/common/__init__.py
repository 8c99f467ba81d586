"""Small values that every other room of `spaces` uses."""
