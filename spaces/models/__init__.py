"""Models as transformers builds them: families, their layers, and what is cut out of them."""
