"""The other scenarios, beside those of test_faults and on a service of their own: both wait more than they work."""

import pytest

from tests.chaos.test_faults import MORE, judge


@pytest.mark.parametrize("name", MORE)
def test_nobody_is_lost_doubled_haunted_or_stuck(world, name: str) -> None:
    judge(world, name)
