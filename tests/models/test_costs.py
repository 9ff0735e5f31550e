"""The FLOPs formulas by name. That they hold is tested in test_families."""

import pytest

from amscale.models import FLOPS_FORMULA, FLOPS_FORMULAS, flops_per_token, solve
from amscale.models.families.gpt2 import GPT2Settings


def test_formulas_are_named():
    """GPT-2 small: 12 layers of 12·768² weights and 9·768 biases; its head, and keys at a context of 1024."""
    shape = solve(GPT2Settings(size="small"), 50257, 1024)
    assert flops_per_token(shape, "6ND") == 6 * 12 * (12 * 768**2 + 9 * 768)
    matmul = 6 * (12 * 12 * 768**2 + 768 * 50257) + 6 * 12 * 768 * 1025
    assert flops_per_token(shape, "matmul") == flops_per_token(shape) == matmul
    assert FLOPS_FORMULA in FLOPS_FORMULAS
    with pytest.raises(ValueError, match=", ".join(FLOPS_FORMULAS)):
        flops_per_token(shape, "12ND")
