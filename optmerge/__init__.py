"""Evolve merges of fine-tuned models: recipes are values, a search is an Optuna study whose trials are recipes."""
