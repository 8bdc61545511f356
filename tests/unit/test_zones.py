"""The header's list of zones."""

from frontend.zones import Display, Zones
from schedules.recurrence import ZONE_NAMES


def test_every_zone_is_offered_once_and_the_chosen_one_alone_is_selected() -> None:
    for chosen in ("", "Europe/Vienna"):
        options = Zones(Display.MINE, "UTC", chosen).options
        assert options.count("<option") == len(ZONE_NAMES)
        assert options.count(" selected>") == bool(chosen)
        assert not chosen or f"<option selected>{chosen}</option>" in options
