import pytest

from helpers.course import bilingual


@pytest.fixture(autouse=True)
def indonesian():
    bilingual.set_language("id")
