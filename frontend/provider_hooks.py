"""What providers call on their own account: Amazon SNS, with what Amazon SES tells of its messages."""

from typing import Final

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from delivery import continuity, counts
from delivery.events import reading, settling, sns
from frontend import buckets
from frontend.sign_in_limits import client_address
from schedules import clock

_MAX_BYTES: Final = 1024 * 1024  # SNS takes 256 KiB, which JSON within JSON may double
_AGAIN: Final = {"Retry-After": "20"}  # as SNS does by itself
# Refusals of one address that are written down and answered in words: a second, and at once.
_TOLD: Final = (0.5, 30)

log = structlog.get_logger(__name__)


@csrf_exempt  # a program has no cookie to be forged with
@require_POST
def ses(request: HttpRequest) -> HttpResponse:
    """SNS brings an event of SES, asks whether a subscription is wanted, or says that one has ended.

    204 when that is done, also when it was done before or the ledger tells nothing of it; 400 for what SNS or SES would
    never send, 403 for what SNS hasn't signed or is of a topic of others, 503 where that could not be found out and in
    a restored database, whose runs are not those yet that events tell of: SNS sends again what is answered with 500 and
    more, and nothing else. Without ``SNS_TOPICS`` there is no such address.
    """
    if not settings.SNS_TOPICS:
        raise Http404
    body = request.read(_MAX_BYTES + 1)  # whatever was announced
    if len(body) > _MAX_BYTES:
        return _not_believed(request, 413, "malformed", "The body is too large.")
    if request.headers.get("x-amz-sns-rawdelivery", "").lower() == "true":
        words = "Raw message delivery carries no signature: turn it off for this address."
        return _not_believed(request, 400, "malformed", words)
    try:
        message = sns.opened(body, now=timezone.now())
        return _taken(message)
    except sns.Malformed as error:
        return _not_believed(request, 400, error.code, str(error))
    except sns.Refused as error:
        return _not_believed(request, 403, error.code, str(error))
    except sns.Away as error:
        return _refused(503, error.code, str(error))
    except reading.Unreadable as error:
        return _refused(400, "unreadable", str(error))
    except (OperationalError, InterfaceError) as error:
        log.error("provider_event_unsettled", error=error)
        return JsonResponse({"status": 503, "detail": "The database is away."}, status=503, headers=_AGAIN)


def _taken(message: sns.Message) -> HttpResponse:
    if message.type == sns.SUBSCRIPTION:
        sns.confirm(message)
        log.info("provider_events_subscribed", topic=message.topic)
        _count("confirmed")
    elif message.type == sns.UNSUBSCRIBED:
        log.error("provider_events_unsubscribed", topic=message.topic)
        _count("unsubscribed")
    elif event := reading.read(message.text):
        if continuity.restored():
            return _refused(503, "restored", "This database was restored and is not settled yet: come again.")
        settling.settle([event], now=clock.now())
    return HttpResponse(status=204)


def _not_believed(request: HttpRequest, status: int, code: str, words: str) -> HttpResponse:
    """Whoever sends such again and again is told nothing more, and fills neither the log nor the counters.

    What SNS has signed is looked at all the same, whoever calls beside it by the same proxy.
    """
    rate, burst = _TOLD
    took = buckets.take(f"hook:{client_address(request) or ''}", rate=rate, burst=burst)
    if took and took.retry_after:
        words, headers = "Too many calls of this address were refused.", {"Retry-After": str(took.retry_after)}
        return JsonResponse({"status": 429, "detail": words}, status=429, headers=headers)
    return _refused(status, code, words)


def _refused(status: int, code: str, words: str) -> HttpResponse:
    log.warning("provider_hook_refused", status=status, code=code, reason=words)
    _count(code)
    headers = _AGAIN if status == 503 else None
    return JsonResponse({"status": status, "detail": words}, status=status, headers=headers)


def _count(result: str) -> None:
    counts.add({counts.Key(counts.PROVIDER_HOOKS, label=result): 1})
