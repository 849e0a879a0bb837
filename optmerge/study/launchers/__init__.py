"""The launchers, one module each, found by name: where the workers of a search run.

Each declares `Options` and `build(options)`, which gives a `Launcher`.
"""
