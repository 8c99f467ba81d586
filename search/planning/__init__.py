"""From a model to what to try first: evidence, block table, costs, knapsack, predictor."""
