"""What subscribers are sent, for the OpenAPI document's ``webhooks``."""

from typing import Any

from drf_spectacular.utils import OpenApiWebhook, extend_schema
from rest_framework import serializers

from delivery.endpoint_models import EventType
from delivery.models import News, State
from delivery.subscribers.telling import ACTIONS
from schedules.models import Channel, OccurrenceState

_OUTCOMES = [state.label for state in State if state.is_outcome]


class _EventSent(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Also the header `webhook-id`: what comes twice has the same.")
    timestamp = serializers.DateTimeField(help_text="When it happened.")
    sequence = serializers.IntegerField(help_text="Rises in the order in which events were told.")


class _RunNamed(serializers.Serializer[Any]):
    scheduleId = serializers.IntegerField()
    scheduleName = serializers.CharField(allow_blank=True)
    occurrenceId = serializers.IntegerField()
    occurrenceAt = serializers.DateTimeField()


class ScheduleChangedData(serializers.Serializer[Any]):
    scheduleId = serializers.IntegerField()
    scheduleName = serializers.CharField(allow_blank=True)
    action = serializers.ChoiceField(choices=sorted(ACTIONS.values()))
    fields = serializers.ListField(child=serializers.CharField(), help_text="Names of what changed, no values.")  # type: ignore[assignment]
    by = serializers.CharField(help_text="`user:ID`, `client:ID` or `system:NAME`.")


class RunStartedData(_RunNamed):
    startedAt = serializers.DateTimeField(help_text="When its first person was taken up for sending.")
    targeted = serializers.IntegerField()


class RunFinishedData(_RunNamed):
    state = serializers.ChoiceField(choices=OccurrenceState.values)
    reason = serializers.CharField(allow_blank=True)
    startedAt = serializers.DateTimeField(allow_null=True)
    finishedAt = serializers.DateTimeField()
    targeted = serializers.IntegerField()
    outcomes = serializers.DictField(
        child=serializers.IntegerField(), help_text="People by outcome: they sum up to `targeted`."
    )


class _DeliveryNamed(serializers.Serializer[Any]):
    deliveryId = serializers.CharField()
    recipientId = serializers.IntegerField(help_text="The ledger's own number, which outlives an erasure.")
    recipient = serializers.CharField(allow_null=True, help_text="externalId; null for somebody erased.")


class SettledItem(_DeliveryNamed):
    state = serializers.ChoiceField(choices=_OUTCOMES)
    reason = serializers.CharField(allow_blank=True)
    attempt = serializers.IntegerField()
    providerId = serializers.CharField(allow_blank=True)
    waveAt = serializers.DateTimeField()
    settledAt = serializers.DateTimeField()


class SettledData(_RunNamed):
    channel = serializers.ChoiceField(choices=Channel.values)
    deliveries = SettledItem(many=True, help_text="At most 500.")


class ReportedItem(_DeliveryNamed):
    news = serializers.ChoiceField(choices=[news.label for news in News if news is not News.ACCEPTED])
    at = serializers.DateTimeField(help_text="By the provider's clock.")


class ReportedData(_RunNamed):
    channel = serializers.ChoiceField(choices=Channel.values)
    deliveries = ReportedItem(many=True, help_text="At most 500.")


class TestData(serializers.Serializer[Any]):
    endpointId = serializers.IntegerField()


def _event(event_type: EventType, name: str, data: type[serializers.Serializer[Any]], words: str) -> OpenApiWebhook:
    """Answered by any 2xx."""
    fields = {"type": serializers.ChoiceField(choices=[event_type.value]), "data": data()}
    sent = type(name, (_EventSent,), fields)
    return OpenApiWebhook(
        event_type.value,
        extend_schema(summary=words, description=words, tags=["endpoints"], request=sent, responses={204: None}),
    )


schedule_changed = _event(
    EventType.SCHEDULE_CHANGED, "ScheduleChangedEvent", ScheduleChangedData, "A schedule was made or changed."
)
run_started = _event(EventType.OCCURRENCE_STARTED, "RunStartedEvent", RunStartedData, "A run has started.")
run_finished = _event(EventType.OCCURRENCE_FINISHED, "RunFinishedEvent", RunFinishedData, "A run has ended; its books.")
settled = _event(EventType.DELIVERIES_SETTLED, "SettledEvent", SettledData, "What became of messages of a run.")
reported = _event(
    EventType.DELIVERIES_REPORTED, "ReportedEvent", ReportedData, "What the provider reports of messages afterwards."
)
test = _event(EventType.TEST, "TestEvent", TestData, "Somebody tries the endpoint out.")
