"""The real space and task, and an empty database."""

from study.conftest import assembly, database, empty_file, file_url

__all__ = ["assembly", "database", "empty_file", "file_url"]
