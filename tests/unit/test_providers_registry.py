import pytest
from django.core.exceptions import ImproperlyConfigured

from delivery.checks import check_providers
from delivery.providers import registry
from delivery.providers.base import Provider
from delivery.providers.ses import SesProvider


class PushOnly(Provider):
    name = "push_only"
    channels = frozenset({"push"})
    max_per_call = 1

    def _call(self, messages, *, permit):
        return []


PATH = f"{__name__}.PushOnly"


@pytest.fixture(autouse=True)
def _fresh_registry():
    registry.chain.cache_clear()
    yield
    registry.chain.cache_clear()


def test_a_channel_is_served_by_the_provider_that_the_setting_names(settings):
    settings.PROVIDERS = {"email": "ses"}
    assert isinstance(registry.for_channel("email"), SesProvider)


def test_a_process_has_one_provider_per_channel(settings):
    settings.PROVIDERS = {"email": "ses"}
    assert registry.for_channel("email") is registry.for_channel("email")


def test_a_provider_of_ones_own_is_named_by_its_path(settings):
    settings.PROVIDERS = {"push": PATH}
    assert isinstance(registry.for_channel("push"), PushOnly)


@pytest.mark.parametrize(
    ("providers", "channel", "words"),
    [
        ({}, "email", "names no provider for 'email': add one of fcm, in_app, outbox, ses"),
        ({"email": "sendmail"}, "email", "names 'sendmail': use one of fcm, in_app, outbox, ses"),
        ({"email": "nowhere.Provider"}, "email", "'nowhere.Provider', which can't be imported"),
        ({"email": "pathlib.Path"}, "email", "'pathlib.Path', which is no Provider"),
        ({"email": PATH}, "email", "which serves push only"),
    ],
)
def test_a_wrong_setting_is_named_together_with_its_remedy(settings, providers, channel, words):
    settings.PROVIDERS = providers
    with pytest.raises(ImproperlyConfigured, match=words):
        registry.for_channel(channel)


def test_the_system_check_reports_each_channel_that_has_no_usable_provider(settings):
    settings.PROVIDERS = {"email": "sendmail", "push": PATH, "in_app": "nowhere.Provider"}
    problems = check_providers(None)
    assert [p.obj for p in problems] == ["PROVIDERS['email']", "PROVIDERS['in_app']"]
    assert {p.id for p in problems} == {"delivery.E001"}
    assert all(p.hint for p in problems)


def test_the_system_check_reports_a_sender_that_is_missing(settings):
    settings.PROVIDERS = {"email": "ses"}
    settings.EMAIL_FROM = ""
    (problem,) = check_providers(None)
    assert "EMAIL_FROM is empty" in problem.msg
