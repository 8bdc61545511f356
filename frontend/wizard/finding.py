"""The schedule that an address names."""

from django.http import Http404
from django.utils.translation import gettext as _

from schedules.models import Schedule


def find(schedule_id: int) -> Schedule:
    """One that is not deleted. Raises ``Http404`` with words."""
    found = Schedule.objects.live().select_related("template").filter(pk=schedule_id).first()
    if found is None:
        raise Http404(_("There is no such schedule. It may have been deleted."))
    return found
