"""bitsandbytes keeps what lesson 03 switches off; the two lists of libraries are one."""

import tomllib

import bitsandbytes as bnb
from packaging.requirements import Requirement

from helpers.settings import ROOT


def test_the_4_bit_layer_still_has_its_switch_for_the_packed_layout():
    """Without it an evaluation on a processor with AVX512-BF16 would end the learning unseen."""
    layer = bnb.nn.Linear4bit(64, 32)
    assert hasattr(layer, "support_avx512bf16_for_cpu")


def test_pyproject_and_requirements_txt_name_the_same_libraries():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = project["dependencies"] + project["optional-dependencies"]["test"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    asked = [Requirement(line) for line in lines if not line.startswith("#")]
    assert list(map(Requirement, named)) == asked
