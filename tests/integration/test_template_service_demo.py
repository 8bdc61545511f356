"""The demo's templates, kept by a template service and here again: the same names, ids and words."""

import json

import pytest

from scheduler_project.demo import content, data
from schedules import templates
from schedules.models import MessageTemplate
from schedules.template_service.mirror import mirror_all
from tests.factories import BY, NOW

pytestmark = pytest.mark.django_db


@pytest.fixture
def ours() -> dict[str, int]:
    """Ids by name of the demo's templates, kept here; one of them has been changed by somebody."""
    for name, contents in content.templates().items():
        templates.save(name=name, contents=contents, by=BY, now=NOW)
    templates.save(name=content.BULLETIN, contents=[_changed()], by=BY, now=NOW)
    return dict(MessageTemplate.objects.values_list("name", "pk"))


def _changed() -> dict[str, str]:
    return {"channel": "in_app", "locale": "en", "subject": "Changed", "text": "by {{ first_name }}"}


def test_handed_over_they_say_the_same_under_the_same_ids(ours, template_service, tmp_path):
    path, catalogues = tmp_path / "templates.ndjson", tmp_path / "catalogues.json"
    data.write_templates(path, catalogues)
    data.hand_over()
    template_service.put(*map(json.loads, path.read_text().splitlines()))
    mirror_all(now=NOW)
    assert dict(MessageTemplate.objects.live().values_list("name", "pk")) == ours
    assert all(each.is_remote for each in MessageTemplate.objects.all())
    bulletin = MessageTemplate.objects.get(name=content.BULLETIN)
    assert [(each.version, bool(each.service_version)) for each in bulletin.versions.order_by("version")] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert bulletin.versions.get(version=3).contents == [{"channel": "in_app", "locale": "en"}]
    assert json.loads(catalogues.read_text()).keys() == content.CATALOGUES.keys()


def test_what_is_written_says_the_version_by_its_words(ours, tmp_path):
    first, second, third = (tmp_path / f"{number}.ndjson" for number in range(3))
    for path in (first, second):
        data.write_templates(path, tmp_path / "catalogues.json")
    templates.save(name=content.DIGEST, contents=[{**_changed(), "channel": "push"}], by=BY, now=NOW)
    data.write_templates(third, tmp_path / "catalogues.json")
    assert first.read_text() == second.read_text()
    before, after = (
        {each["name"]: each["version"] for each in map(json.loads, path.read_text().splitlines())}
        for path in (first, third)
    )
    assert [name for name in before if before[name] != after[name]] == [content.DIGEST]


def test_taken_back_they_are_ours_again(ours, template_service, tmp_path):
    path = tmp_path / "templates.ndjson"
    data.write_templates(path, tmp_path / "catalogues.json")
    data.hand_over()
    template_service.put(*map(json.loads, path.read_text().splitlines()))
    mirror_all(now=NOW)
    data.take_back(now=NOW)
    kept = MessageTemplate.objects.live()
    assert dict(kept.values_list("name", "pk")) == ours
    assert not any(each.is_remote for each in kept)
    newsletter = kept.get(name=content.NEWSLETTER)
    assert newsletter.versions.get(version=newsletter.version).service_version == ""
    assert {each.locale for each in newsletter.contents.all()} == set(content.LANGUAGES)
    data.take_back(now=NOW)
    assert kept.get(name=content.NEWSLETTER).version == newsletter.version, "what is ours already stays as it is"
