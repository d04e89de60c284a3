import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_dice.data.cases import split_cases
from lightning_dice.errors import InputError


def ids(count: int) -> list[str]:
    return [f"case_{number:04d}" for number in range(count)]


def test_a_tenth_of_the_papers_patients_are_its_37_test_patients():
    split = split_cases(ids(377))
    assert (len(split.train), len(split.validation), len(split.test)) == (306, 34, 37)
    assert len(split_cases(ids(377), validation=0).train) == 340


@given(st.integers(3, 80), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 5))
def test_every_case_is_in_exactly_one_part(count, test, validation, seed):
    split = split_cases(ids(count), test, validation, seed)
    parts = [*split.train, *split.validation, *split.test]
    assert sorted(parts) == ids(count)
    assert split.train
    assert bool(split.test) == (test > 0)
    assert bool(split.validation) == (validation > 0)
    for part in (split.train, split.validation, split.test):
        assert list(part) == sorted(part)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    assert split_cases(ids(50), seed=1) == split_cases(ids(50), seed=1)
    assert split_cases(ids(50), seed=1).test != split_cases(ids(50), seed=2).test
    assert set(split_cases(ids(50)[::-1]).test) == set(split_cases(ids(50)).test)


@pytest.mark.parametrize("share", [-0.1, 1.0, 3])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match=f"data.test={share}"):
        split_cases(ids(10), test=share)


def test_a_split_with_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match=r"2 cases .* leave none to train on"):
        split_cases(ids(2))
