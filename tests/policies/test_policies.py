"""Published policies against the numbers of their sources."""

import pytest

from amscale.models.shape import ParameterCounts, Shape
from amscale.policies import POLICIES, PolicyCell, find_policy


def cell(*, width: int = 512, attention: int = 0, head: int = 0, embedding: int = 0, tokens: float, batch: float = 0):
    """A cell whose N is what its parts add up to."""
    counts = ParameterCounts(embedding, head, attention, 0, 0)
    shape = Shape("gpt2", 12, width, 8, 4 * width, 50000, 1024, None, counts)
    return PolicyCell(shape, int(tokens), 1024, lambda: tokens, lambda: batch)


def test_every_policy_gives_what_it_says_that_it_sets():
    for name in POLICIES:
        policy = find_policy(name)
        example = cell(attention=10**8, tokens=2e9, batch=2**19)
        found = set(policy.settings(example)) | ({"batch_tokens"} if policy.batch_tokens(example) else set())
        assert found == set(policy.sets), name
        assert policy.source
        assert policy.counts


def test_step_law_is_1_79_N_D_and_0_58_D():
    """The paper's formulas; at N = 1e9 and D = 1e11 they give 1.63e-3 and 1.1 million tokens."""
    policy = find_policy("step_law")
    one = policy.settings(cell(attention=1, tokens=1.0))
    assert one["learning_rate"] == pytest.approx(1.79)
    assert policy.batch_tokens(cell(tokens=1.0)) == pytest.approx(0.58)
    large = cell(attention=10**9, head=10**8, embedding=10**8, tokens=1e11)
    found = policy.settings(large)
    assert found["learning_rate"] == pytest.approx(1.79 * 10 ** (-9 * 0.713 + 11 * 0.307), rel=1e-9)
    assert found["learning_rate"] * found["final_learning_rate"] == pytest.approx(1e-5)
    assert policy.batch_tokens(large) == pytest.approx(1.1e6, rel=0.01)


def test_olmo_ladder_at_its_reference_and_beyond():
    """108M parameters: 160 sequences of 2048 tokens, 0.0047 halved for its schedule; β₂ .99 below 524,288 tokens."""
    policy = find_policy("olmo_ladder")
    N = 108_000_000
    reference = cell(attention=N - 10**7, head=10**7, embedding=10**8, tokens=20 * N, batch=2048 * 160)
    assert policy.batch_tokens(reference) == pytest.approx(2048 * 160)
    found = policy.settings(reference)
    assert found["learning_rate"] == pytest.approx(0.0047 / 2)
    assert found["betas"] == (0.9, 0.99)
    assert found["warmup"] == round(N / (2048 * 160))
    four = policy.settings(cell(attention=N, tokens=80 * N, batch=2048 * 160))
    assert four["learning_rate"] == pytest.approx(0.0047 / 4)
    large = cell(attention=8 * N, tokens=10 * N, batch=4 * 2048 * 160)
    assert policy.batch_tokens(large) == pytest.approx(4 * 2048 * 160)
    assert policy.settings(large)["learning_rate"] == pytest.approx(0.0047 / 4)
    assert policy.settings(large)["betas"] == (0.9, 0.95)


def test_power_lines_gives_what_nanochat_printed_for_24_layers():
    """Its log: batch 1,048,576 tokens, rates times 1.4142 (24 layers of width 1536, vocabulary 32768)."""
    policy = find_policy("power_lines")
    tokens = 12 * (12 * 24 * 1536**2 + 32768 * 1536)
    assert policy.batch_tokens(cell(tokens=tokens)) == 1_048_576
    found = policy.settings(cell(tokens=tokens, batch=1_048_576))
    assert found["learning_rate"] == pytest.approx(1e-3 * 1.4142, rel=1e-4)
    reference = 12 * (12 * 12 * 768**2 + 32768 * 768)
    assert policy.batch_tokens(cell(tokens=reference)) == 524_288
    assert found["weight_decay"] == pytest.approx(0.1 * 1.4142 * reference / tokens, rel=1e-4)


def test_marin_at_256_sequences_and_width_1024():
    """Its recipe: 0.33·√256/1024, β₂ = 0.98² = 0.9604; 2^16 steps, rounded up to a power of 2 of sequences."""
    policy = find_policy("marin")
    found = policy.settings(cell(width=1024, tokens=1e11, batch=256 * 4096))
    assert found["learning_rate"] == pytest.approx(0.33 * 16 / 1024)
    assert found["betas"] == pytest.approx((0.95, 0.9604))
    assert policy.batch_tokens(cell(width=4096, tokens=2**16 * 4096 * 100)) == 128 * 4096
    # 0.33·√128/256 is more than 0.01: halved until it is not, at 32 sequences and then 0.0073.
    assert policy.batch_tokens(cell(width=256, tokens=2**16 * 4096 * 100)) == 32 * 4096
    assert policy.batch_tokens(cell(width=64, tokens=1e6)) == 1024


def test_marin_delphi_at_its_reference_and_at_a_longer_horizon():
    """8 sequences, width 512, 1e9 tokens: 5.2e-4; ten times the tokens: times 10^-0.3."""
    policy = find_policy("marin_delphi")
    reference = policy.settings(cell(width=512, tokens=1e9, batch=8 * 4096))["learning_rate"]
    assert reference == pytest.approx(5.204e-4, rel=1e-3)
    longer = policy.settings(cell(width=512, tokens=1e10, batch=8 * 4096))["learning_rate"]
    assert longer / reference == pytest.approx(10**-0.3)
    wider = policy.settings(cell(width=1024, tokens=1e9, batch=32 * 4096))["learning_rate"]
    assert wider == pytest.approx(reference)
