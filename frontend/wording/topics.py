"""Topics and what consent means, in words."""

from collections.abc import Mapping

from django.utils.translation import gettext_lazy

from frontend.wording.reasons import Words
from schedules.models import Default, Purpose

DEFAULTS: Mapping[str, Words] = {
    Default.OPTED_IN: gettext_lazy("until they object"),
    Default.OPTED_OUT: gettext_lazy("once they agree"),
}
PURPOSES: Mapping[str, Words] = {
    Purpose.MARKETING: gettext_lazy("Marketing: only with consent"),
    Purpose.TRANSACTIONAL: gettext_lazy("Transactional: without asking for consent"),
}
