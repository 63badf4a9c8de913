"""Before a model is fetched from the hub: how large it is."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from helpers import course, show


@pytest.mark.parametrize(
    ("cached", "told"), [("", "9.0 GB"), ("a.safetensors", "4.0 GB"), ("all", "")]
)
def test_a_download_is_announced_with_its_size(monkeypatch, cached, told):
    files = [
        SimpleNamespace(file_size=size, will_download=cached not in (name, "all"))
        for name, size in (("a.safetensors", 5e9), ("b.safetensors", 4e9))
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: files)
    said = []
    monkeypatch.setattr(show, "display", lambda shown: said.append(shown.data))
    assert bool(course.announce_download("a/model")) is bool(told)
    assert told in "".join(said) and bool(said) is bool(told)
