"""Before a model is fetched from the hub: how large it is, and whether there is room."""

from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from helpers import course
from helpers.files import UsageError


@pytest.mark.parametrize(
    ("cached", "free", "told"),
    [("", 20e9, "9.0 GB"), ("a.safetensors", 20e9, "4.0 GB"), ("", 8e9, None), ("all", 0, "")],
)
def test_a_download_is_announced_with_its_size_or_refused_for_lack_of_room(
    monkeypatch, tmp_path, cached, free, told
):
    sizes = {"a.safetensors": 5e9, "b.safetensors": 4e9, "README.md": 1e3}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    api = SimpleNamespace(model_info=lambda name, files_metadata: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    there = lambda name, file: file if cached in (file, "all") else None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", there)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(course.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    said = []
    monkeypatch.setattr(course, "say", lambda indonesian, english: said.append(english))
    if told is None:
        with pytest.raises(UsageError, match="takes 9.0 GB, and the disk .* has 8.0 free; make"):
            course.announce_download("a/model")
        return
    assert bool(course.announce_download("a/model")) is bool(told)
    assert told in "".join(said).replace(",", ".") and bool(said) is bool(told)
