"""Models of transformers: families, their layers, and surgery on them."""
