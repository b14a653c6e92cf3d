"""fusionreid.data.sampler: the properties of P x K batches, and a loop that deals them out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fusionreid.data import PKSampler

IDENTITIES = np.random.default_rng(0).permutation(
    np.repeat(np.arange(20) * 3, np.arange(1, 21))
)  # 1 to 20 images


def epoch(number: int = 0, **arguments) -> list[list[int]]:
    batches = PKSampler(IDENTITIES, 4, 4, **arguments)
    batches.set_epoch(number)
    return list(batches)


def by_hand(identities, p, k, seed, number):
    """The same rule, told image by image, with the same random numbers."""
    random = np.random.default_rng((seed, number))
    groups = {}
    for identity in sorted(set(identities)):
        images = [index for index, other in enumerate(identities) if other == identity]
        images = list(
            random.permutation(images)
            if len(images) >= k
            else random.choice(images, k, replace=True)
        )
        groups[identity] = [images[start : start + k] for start in range(0, len(images) - k + 1, k)]
    batches, names = [], sorted(groups)
    while sum(1 for name in names if groups[name]) >= p:
        batch = []
        for name in random.choice(
            [i for i, name in enumerate(names) if groups[name]], p, replace=False
        ):
            batch += groups[names[name]].pop()
        batches.append(batch)
    return batches


@pytest.mark.parametrize(("seed", "number"), [(0, 0), (0, 7), (5, 1)])
def test_equals_the_rule_told_slowly(seed, number):
    assert epoch(number, seed=seed) == by_hand(IDENTITIES.tolist(), 4, 4, seed, number)


def test_every_batch_has_p_identities_of_k_images():
    for number in range(5):
        batches = epoch(number)
        assert batches
        for batch in batches:
            assert all(isinstance(index, int) for index in batch)
            assert sorted(Counter(IDENTITIES[batch].tolist()).values()) == [4] * 4
            groups = IDENTITIES[batch].reshape(4, 4)
            assert (groups == groups[:, :1]).all()


def test_an_image_is_repeated_only_where_an_identity_has_too_few():
    used = Counter(index for batch in epoch() for index in batch)
    for index, times in used.items():
        assert times == 1 or (IDENTITIES == IDENTITIES[index]).sum() < 4


def test_an_identity_with_too_few_images_is_drawn_with_replacement():
    """Three images, K = 4: each of the 4 draws is any of the 3, so one or two may be missing."""
    batches = PKSampler([0] * 3 + [1] * 4, 2, 4)
    seen = []
    for number in range(1000):
        batches.set_epoch(number)
        (batch,) = batches
        seen.append([index for index in batch if index < 3])
    distinct = Counter(len(set(images)) for images in seen)
    for count, ways in {1: 3, 2: 42, 3: 36}.items():  # of 3 ** 4 = 81
        assert abs(distinct[count] / 1000 - ways / 81) < 0.05
    assert max(abs(share / 4000 - 1 / 3) for share in Counter(sum(seen, [])).values()) < 0.03


def test_length_is_that_of_the_epoch_and_below_its_bound():
    bound = sum(max(1, count // 4) for count in Counter(IDENTITIES.tolist()).values()) // 4
    batches = PKSampler(IDENTITIES, 4, 4)
    for number in range(10):
        batches.set_epoch(number)
        assert bound // 2 <= len(batches) == len(list(batches)) <= bound


def test_seed_and_epoch_decide():
    assert epoch() == epoch() == epoch(seed=0)
    assert epoch() != epoch(seed=1) and epoch() != epoch(1)
    batches = PKSampler(IDENTITIES, 4, 4)
    first = list(batches)
    batches.set_epoch(3)
    list(batches)
    batches.set_epoch(0)
    assert list(batches) == first


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_shares_side_by_side_are_the_batch_of_one_process(world_size):
    shares = [epoch(2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == epoch(2)


def test_an_epoch_of_equal_identities_shows_every_image_once():
    batches = list(PKSampler(np.repeat(np.arange(8), 6), 8, 3))
    assert sorted(index for batch in batches for index in batch) == list(range(48))


@pytest.mark.parametrize(
    ("identities", "arguments", "message"),
    [
        (
            [1, 1, 1, 1],
            {"num_identities": 2},
            "batch of 2 identities .TrainConfig.identities. .* of 1",
        ),
        ([], {"num_identities": 2}, "of 0"),
        ([1, 2, 3], {"num_identities": 8}, "batch of 8 .* of 3"),
        ([1, 2, 3], {"num_identities": 3, "num_images": 3, "world_size": 2}, "world_size=2"),
        ([1, 2], {"num_identities": 2, "rank": 1}, "rank=1 of world_size=1"),
    ],
)
def test_errors(identities, arguments, message):
    with pytest.raises(ValueError, match=message):
        PKSampler(identities, **arguments)
