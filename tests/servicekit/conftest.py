"""Fixtures of the kit's tests."""

import pytest

from tests.servicekit.kit import Protos, generate


@pytest.fixture(scope="session")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Protos:
    return generate(tmp_path_factory.mktemp("protos"))
