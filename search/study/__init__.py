"""The study: its file, subject, budget, and Optuna study."""
