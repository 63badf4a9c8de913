"""bitsandbytes keeps what lesson 03 switches off."""

import bitsandbytes as bnb


def test_the_4_bit_layer_still_has_its_switch_for_the_packed_layout():
    """Without it an evaluation on a processor with AVX512-BF16 would end the learning unseen."""
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4")
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    layer.to("cpu")  # quantises
    assert layer.weight.data.dtype.itemsize * layer.weight.data.numel() == 64 * 32 // 2
