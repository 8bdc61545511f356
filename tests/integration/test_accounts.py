"""What an account allows is asked of the provider, known before the first call, exceeded by no more than a bucket."""

import time
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone
from prometheus_client import generate_latest

from delivery import accounts, counters, pace, sending
from delivery.metrics import Figures
from delivery.models import Circuit, ProviderAccount
from delivery.pace import Limits
from delivery.providers.base import ProviderError, Quota, Verdict
from delivery.providers.fcm import FcmProvider
from delivery.providers.ses import SesProvider
from schedules.permissions import Role
from stubs.testing import running_fcm, running_ses
from tests.accounts import account
from tests.factories import NOW, ScheduleFactory, people
from tests.recording import RecordingProvider
from tests.service import MINUTE, in_threads, reasons, states


@pytest.fixture(autouse=True)
def _forgetful():
    accounts.forget()
    yield
    accounts.forget()


@pytest.fixture
def allowed(monkeypatch, provider):
    """Sets what the recording provider's account allows, as whoever asks hears it from now on."""
    monkeypatch.setattr(RecordingProvider, "has_quota", True)
    said = {"quota": Quota()}
    asked = []

    def quota(self):
        asked.append(time.monotonic())
        if isinstance(said["quota"], Exception):
            raise said["quota"]
        return said["quota"]

    monkeypatch.setattr(RecordingProvider, "quota", quota)

    def says(quota):
        said["quota"] = quota
        accounts.forget()

    says.asked = asked
    return says


def passes(seconds, scope="email"):
    """Let time go by for the account's bucket."""
    key, client = f"{{pace}}:{scope}", counters._client()
    if at := client.hget(key, "room_at"):
        client.hset(key, "room_at", int(at) - round(1000 * seconds))


# --- The bucket, on one server and on a cluster -----------------------------------------------------------------------


def test_a_bucket_of_a_second_goes_at_once_and_then_as_much_as_the_rate_lets(servers):
    limits = Limits(per_s=14.0)
    assert limits.bucket == 14
    assert pace.take("email", 10, limits) == 0.0
    assert pace.take("email", 10, limits) <= 6 / 14 + 0.001
    assert pace.take("email", 4, limits) == 0.0
    passes(0.5)
    assert pace.take("email", 7, limits) == 0.0
    assert pace.take("email", 14, limits) > 0


def test_a_long_rest_saves_up_one_bucket_and_no_more(servers):
    limits = Limits(per_s=5.0)
    assert pace.take("email", 5, limits) == 0.0
    passes(3600)
    assert pace.take("email", 5, limits) == 0.0
    assert pace.take("email", 5, limits) > 0


def test_slower_than_one_a_second_is_one_at_a_time(servers):
    limits = Limits(per_s=0.25)
    assert limits.bucket == 1
    assert pace.take("email", 1, limits) == 0.0
    assert 2 < pace.take("email", 1, limits) <= 4.0


def test_processes_together_never_take_more_than_the_rate_and_one_bucket(servers):
    limits, taken, began = Limits(per_s=200.0), [], time.monotonic()

    def take():
        while time.monotonic() - began < 1.5:
            if pace.take("email", 9, limits) == 0.0:
                taken.append(9)

    in_threads(*[take] * 4)
    lasted = time.monotonic() - began
    assert limits.bucket / 2 < sum(taken) <= 200 * lasted + limits.bucket


def test_the_lower_of_an_account_and_of_what_was_found_holds(servers):
    limits = Limits(per_s=1000.0)
    assert pace.take("email", 20, limits) == 0.0
    pace.slow_down("email", wait_s=0.0)
    assert pace.rate("email") == 10
    time.sleep(0.15)
    assert pace.take("email", 1, limits) == 0.0
    assert pace.take("email", 50, limits) == 0.0 or pace.take("email", 1, limits) > 0


def test_of_a_day_so_many_go_as_were_left_and_a_new_reading_counts_anew(servers):
    first, second = Limits(left=100, read="09:00"), Limits(left=30, read="09:01")
    assert pace.take("email", 60, first) == 0.0
    assert pace.take("email", 60, first) == 60.0
    assert pace.take("email", 40, first) == 0.0
    assert pace.take("email", 1, first) == 60.0
    assert pace.take("email", 30, second) == 0.0
    assert pace.take("email", 1, second) == 60.0


def test_scopes_have_buckets_of_their_own(servers):
    limits = Limits(per_s=5.0)
    assert [pace.take(scope, 5, limits) for scope in ("email:a", "email:b", "push")] == [0.0] * 3
    assert pace.take("email:a", 5, limits) > 0


# --- The account ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_goes_before_it_is_known_what_may(service, allowed, monkeypatch):
    allowed(Quota(per_s=7.0))
    people(20)
    schedule = ScheduleFactory()
    monkeypatch.setattr(sending, "TASK_S", 60.0)
    service.step()
    calls = [call.started_at for call in RecordingProvider.calls]
    assert allowed.asked[0] < calls[0]
    assert [len(call.messages) for call in RecordingProvider.calls] == [7, 7, 6]
    assert states(schedule) == {"sent": 20}
    assert calls[-1] - allowed.asked[0] >= 1.8  # the first seven at once, thirteen more at seven a second


@pytest.mark.django_db
def test_the_setting_holds_where_it_is_lower_and_where_there_is_no_account(service, provider, settings):
    settings.MOST_PER_S = {"email": 5.0}
    people(10)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 10}
    assert max(len(call.messages) for call in RecordingProvider.calls) <= 5
    assert not ProviderAccount.objects.exists()


@pytest.mark.django_db
def test_a_days_quota_that_is_used_up_holds_the_channel_before_anybody_is_refused_and_frees_it(service, allowed):
    allowed(Quota(per_day=50, used=50))
    people(3)
    schedule = ScheduleFactory()
    accounts.refresh(now=NOW)
    assert Circuit.objects.get(scope="email").reason == "daily_quota"
    service.step()
    assert RecordingProvider.calls == []
    assert states(schedule) == {"pending": 3}
    allowed(Quota(per_day=50, used=20))
    accounts.refresh(now=NOW)
    assert not Circuit.objects.exists()
    service.after(MINUTE).send()
    assert states(schedule) == {"sent": 3}


@pytest.mark.django_db
def test_more_than_is_left_of_the_day_waits_and_nobody_pays_for_it(service, allowed, settings):
    settings.CALLS_IN_FLIGHT = 1
    allowed(Quota(per_day=1000, used=940))
    people(120)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 50, "pending": 70}
    assert reasons(schedule) == {"sent: ": 50, "pending: ": 70}
    allowed(Quota(per_day=1000, used=800))
    accounts.refresh(now=NOW)
    service.after(MINUTE).send(rounds=3)
    assert states(schedule) == {"sent": 120}


@pytest.mark.django_db
def test_alarms_know_what_an_account_allows(service, allowed):
    allowed(Quota(per_s=14.0, per_day=50_000, used=20_000))
    accounts.refresh(now=NOW)
    figures = generate_latest(Figures(now=lambda: NOW)).decode()
    assert 'provider_account_people_per_second{scope="email"} 14.0' in figures
    assert 'provider_account_people_left{scope="email"} 30000.0' in figures


@pytest.mark.django_db
def test_a_refusal_of_the_day_that_the_provider_tells_first_is_freed_by_the_account(service, allowed):
    allowed(Quota(per_day=1000, used=0))
    people(1)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.MISCONFIGURED, "daily_quota")
    service.step()
    assert Circuit.objects.get().reason == "daily_quota"
    RecordingProvider.reset()
    accounts.refresh(now=NOW)
    service.after(MINUTE).send()
    assert states(schedule) == {"sent": 1}


@pytest.mark.django_db
def test_an_account_that_does_not_tell_keeps_what_it_told_and_a_new_one_has_no_limit(service, allowed):
    allowed(ProviderError(Verdict.MISCONFIGURED, "access_denied"))
    people(1)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 1}
    assert len(allowed.asked) == 1
    service.after(MINUTE).step()
    assert len(allowed.asked) == 1  # the minute's task asks again, not every claim
    allowed(Quota(per_s=3.0))
    assert accounts.refresh(now=NOW) == 3  # e-mail, push and in-app are the same double here
    allowed(ProviderError(Verdict.TRANSIENT, "unreachable"))
    assert accounts.refresh(now=NOW) == 0
    assert ProviderAccount.objects.get(scope="email").per_s == 3.0


@pytest.mark.django_db
def test_what_was_left_an_hour_ago_says_nothing_today(provider, allowed):
    old = timezone.now() - timedelta(hours=2)
    ProviderAccount.objects.create(scope="email", per_s=9.0, per_day=50, left=0, read_at=old)
    assert accounts.limits("email", RecordingProvider(), "email") == Limits(per_s=9.0)


@pytest.mark.django_db
def test_while_the_database_is_away_what_was_known_holds(allowed, monkeypatch):
    allowed(Quota(per_s=9.0))
    assert accounts.limits("email", RecordingProvider(), "email") == Limits(per_s=9.0)

    def away(*_args):
        raise OperationalError("gone")

    monkeypatch.setattr(accounts, "_FRESH_S", 0.0)
    monkeypatch.setattr(accounts, "_limits", away)
    assert accounts.limits("email", RecordingProvider(), "email") == Limits(per_s=9.0)


@pytest.mark.django_db
def test_the_dashboard_says_what_the_account_allows_and_when_hardly_anything_is_left(allowed, client):
    client.force_login(account(Role.ADMIN))
    allowed(Quota(per_s=14.0, per_day=50_000, used=20_000))
    accounts.refresh(now=NOW)
    page = client.get("/dashboard/").content.decode()
    assert "The account allows 14.0 people a second, and of 50,000 in 24 hours 30,000 are left." in page
    allowed(Quota(per_s=14.0, per_day=50_000, used=49_000))
    accounts.refresh(now=NOW)
    page = client.get("/dashboard/").content.decode()
    assert "in 24 hours 1,000 are left." in page
    assert "Ask the provider for a higher quota" in page


# --- The real ones ----------------------------------------------------------------------------------------------------


def test_amazon_tells_its_rate_and_what_is_left_of_the_day(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with running_ses(options=("--max-send-rate", "14", "--max-24-hours", "50000")) as stub:
        made = SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url=stub.url)
        assert made.quota() == Quota(14.0, 50_000, 0)
    with running_ses() as stub:
        made = SesProvider(sender="shop@example.com", region="eu-central-1", endpoint_url=stub.url)
        assert made.quota().per_day is None
    with pytest.raises(ProviderError, match="unreachable"):
        SesProvider(
            sender="shop@example.com",
            region="eu-central-1",
            endpoint_url="http://127.0.0.1:1",
            connect_timeout=0.5,
            read_timeout=0.5,
        ).quota()


def test_firebase_s_quota_is_the_setting_spread_evenly(settings, tmp_path):
    with running_fcm(credentials=tmp_path / "account.json") as stub:
        made = FcmProvider(service_account=str(stub.credentials), endpoint=stub.url)
    settings.FCM_PER_MINUTE = 600_000
    assert made.quota() == Quota(per_s=10_000.0)
    settings.FCM_PER_MINUTE = 0
    assert made.quota() == Quota()
