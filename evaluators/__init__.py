"""What a candidate is worth here, measured on the rebuilt model: accuracy, latency, memory, more.

Knows neither Ray nor Optuna.
"""
