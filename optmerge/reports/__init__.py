"""Pictures, tables and the progress line."""
