"""A store of MLflow: it takes seconds to make, so all tests share one, with experiments and models of their own."""

import pytest


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a database that is not there yet, in a folder that is not there yet."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'new' / 'mlflow.db'}"
