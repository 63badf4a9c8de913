import pytest

from helpers import show


@pytest.fixture(autouse=True)
def indonesian():
    show.set_language("id")
