"""Forms in which recipes are written for other programs; each module has `build(export)`."""
