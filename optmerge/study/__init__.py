"""The search: an Optuna study whose trials are recipes."""
