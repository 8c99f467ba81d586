"""Measures candidates on the rebuilt model: quality, latency, memory and more.

Knows neither Ray nor Optuna.
"""
