"""Samplers that are not Optuna's own."""
