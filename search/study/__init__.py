"""The study file, its subject, its budget, and the Optuna study."""
