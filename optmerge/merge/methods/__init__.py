"""The merge methods, one module each, found by name. Each declares a function of its own name with `merge_method`."""
