"""Planning: evidence, block table, costs, knapsack and predictor decide what to try first."""
