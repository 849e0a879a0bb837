import hashlib

import pytest
import torch

from optmerge.models import weights_sha256


def test_hash_is_over_the_documented_bytes():
    tensors = [("a", torch.tensor([[1.0, 2.0]])), ("ü", torch.tensor(1.0, dtype=torch.bfloat16))]
    expected = b'["a","F32",[1,2]]\n\x00\x00\x80\x3f\x00\x00\x00\x40' + b'["\\u00fc","BF16",[]]\n\x80\x3f'
    assert weights_sha256(tensors) == hashlib.sha256(expected).hexdigest()


def test_memory_layout_does_not_matter():
    tensor = torch.randn(3, 4)
    assert weights_sha256([("a", tensor.T)]) == weights_sha256([("a", tensor.T.contiguous())])


@pytest.mark.parametrize(
    "other",
    [
        ("b", torch.zeros(4)),
        ("a", torch.zeros(2, 2)),
        ("a", torch.zeros(4, dtype=torch.int32)),
        ("a", torch.tensor([0.0, 0.0, 0.0, -0.0])),
    ],
)
def test_name_shape_dtype_and_bits_all_count(other):
    assert weights_sha256([other]) != weights_sha256([("a", torch.zeros(4))])


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_unsorted_tensors_are_refused(names):
    with pytest.raises(ValueError, match="sorted by name"):
        weights_sha256((name, torch.zeros(1)) for name in names)
