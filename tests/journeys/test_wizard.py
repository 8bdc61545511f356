"""A marketer makes a schedule: in the list's modal, by keyboard alone, over two sittings, and beside a colleague."""

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from schedules.models import Schedule, ScheduleStatus
from schedules.permissions import Role
from tests.factories import RecipientFactory, ScheduleFactory, TemplateFactory, people

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world(service):
    TemplateFactory(name="Spring offer")
    TemplateFactory(name="Ping", channels=("push",))
    RecipientFactory(external_id="anna", locale="de-AT", attributes={"first_name": "Anna", "plan": "pro"})
    people(2, attributes={"plan": "free"})


def go(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).last.click()


def real(errors: list[str]) -> list[str]:
    """Refused forms are answered with 422, which Chromium calls an error; scripts are meant to be kept from frames."""
    return [error for error in errors if "422" not in error and "sandboxed" not in error]


def test_a_double_click_on_the_first_button_makes_one_draft(world, open_page):
    page = open_page(Role.MARKETER)
    page.goto("/schedules/new/")
    page.get_by_label("Name").fill("Winter sale")
    page.get_by_role("button", name="Next", exact=True).last.dblclick()
    expect(page.get_by_role("heading", name="Audience", exact=True)).to_be_visible()
    assert Schedule.objects.count() == 1


def test_a_schedule_is_made_in_the_lists_modal_and_stands_in_the_list(world, open_page, errors):
    page = open_page(Role.MARKETER)
    page.goto("/schedules/")
    page.get_by_role("link", name="New schedule").first.click()
    modal = page.get_by_role("dialog")
    expect(modal).to_be_visible()
    go(page, "Next")
    expect(modal.get_by_text("Give the schedule a name.")).to_be_visible()
    expect(modal.get_by_label("Name")).to_be_focused()
    modal.get_by_label("Name").fill("Winter sale")
    expect(modal.get_by_text("Give the schedule a name.")).to_have_count(0)
    expect(modal.get_by_role("alert")).to_have_count(0)
    go(page, "Next")

    expect(modal.get_by_role("heading", name="Audience", exact=True)).to_be_focused()
    go(page, "Next")
    expect(modal.get_by_text("Choose who gets it: everyone, or the people who match")).to_be_visible()
    modal.get_by_text("People who match").first.click()
    modal.get_by_label("What", exact=True).select_option("attributes.plan")
    modal.get_by_label("Value").fill("pro")
    expect(modal.get_by_text("People whose plan is “pro”")).to_be_visible()
    expect(modal.locator(".ns-look")).to_contain_text("1 person")
    expect(modal.get_by_role("status").filter(has_text="1 person")).to_have_count(1)
    modal.get_by_role("button", name="Add a condition").click()
    expect(modal.locator("#id_row-1-field")).to_be_focused()
    modal.get_by_role("button", name="Remove condition 2").press("Enter")
    expect(modal.locator("#id_row-1-field")).to_have_count(0)
    expect(modal.locator("button:focus")).to_have_count(1)
    go(page, "Next")

    expect(modal.get_by_role("heading", name="Message", exact=True)).to_be_focused()
    go(page, "Next")
    expect(modal.get_by_text("Choose the template that is sent.")).to_be_visible()
    modal.get_by_label("Search templates").fill("spring")
    expect(modal.get_by_text("Ping")).to_have_count(0)
    modal.get_by_text("Spring offer").click()
    expect(modal.get_by_text("Dear Anna, it is time.")).to_be_visible()
    go(page, "Next")

    expect(modal.get_by_role("heading", name="When", exact=True)).to_be_focused()
    go(page, "Next")
    expect(modal.get_by_text("Choose the day and the time at which it goes out.")).to_be_visible()
    modal.get_by_label("Day", exact=True).fill("2026-11-20")
    modal.locator("#id_run_time").fill("09:00")
    go(page, "Next")
    expect(modal.get_by_text("This time has passed already: choose a later one.").first).to_be_visible()
    modal.get_by_label("Day", exact=True).fill("2026-11-23")
    expect(modal.locator(".ns-look").get_by_text("Once, on 2026-11-23 at 09:00 UTC")).to_be_visible()
    go(page, "Next")
    go(page, "Next")

    expect(modal.get_by_text("would get it", exact=True)).to_be_visible()
    go(page, "Activate")
    page.wait_for_url(f"**/schedules/{Schedule.objects.get().pk}/")
    page.goto("/schedules/")
    expect(page.get_by_role("link", name="Winter sale")).to_be_visible()
    assert Schedule.objects.get().status == ScheduleStatus.ACTIVE
    assert real(errors) == []


def test_a_count_that_does_not_come_is_asked_for_again_and_many_people_ask_for_the_name(
    world, open_page, settings, service
):
    settings.CONFIRM_AUDIENCE = 2
    draft = ScheduleFactory(name="Winter sale", run_at=service.now + timedelta(days=1), draft=True)
    page = open_page(Role.MARKETER)
    page.route("**/people/", lambda route: route.abort())
    page.goto(f"/schedules/{draft.pk}/build/review/")
    again = page.locator(".ns-w-people").get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    expect(page.get_by_text("Counting the people of its audience…")).to_be_hidden()
    page.unroute("**/people/")
    again.click()
    name = page.get_by_label("3 people belong to its audience. Type its name, “Winter sale”, to activate it:")
    expect(name).to_be_visible()
    go(page, "Activate")
    expect(page.get_by_text("Type the schedule's name as it stands above")).to_be_visible()
    expect(name).to_be_focused()
    name.fill("Winter sale")
    name.press("Enter")
    page.wait_for_url(f"**/schedules/{draft.pk}/")
    assert Schedule.objects.get().status == ScheduleStatus.ACTIVE


def test_the_wizard_is_done_by_keyboard_alone(world, open_page, errors):
    page = open_page(Role.MARKETER)
    page.goto("/schedules/new/")

    def reach(selector: str) -> None:
        """Tab on to it, as somebody does who can't point."""
        for _ in range(80):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab never reaches {selector}")

    reach("#id_name")
    page.keyboard.type("Keys only")
    page.keyboard.press("Enter")
    page.wait_for_url("**/audience/")
    reach("[name=who]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**/message/")
    reach("[name=template_id]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**/when/")
    reach("[name=kind]")
    page.keyboard.press("ArrowDown")
    reach("#id_repeat")
    page.keyboard.type("every week")
    reach("[name=days][value='3']")
    page.keyboard.press("Space")
    reach("button[name=go][value=next]:not(.ns-hidden)")
    page.keyboard.press("Enter")
    page.wait_for_url("**/limits/")
    reach("#id_max_per_user_per_day")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/review/")
    reach("button[value=activate]")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Keys only")).to_be_visible()
    made = Schedule.objects.get()
    assert (made.status, made.cron, made.max_per_user_per_day) == (ScheduleStatus.ACTIVE, "0 9 * * 1,3", 2)
    assert real(errors) == []


def test_a_draft_that_was_left_is_finished_in_another_browser(world, open_page, browser):
    page = open_page(Role.MARKETER)
    page.goto("/schedules/new/")
    page.get_by_label("Name").fill("Left behind")
    go(page, "Next")
    page.get_by_text("Everyone").first.click()
    go(page, "Next")
    expect(page.get_by_role("heading", name="Message", exact=True)).to_be_visible()
    page.context.close()

    Schedule.objects.get(status=ScheduleStatus.DRAFT)
    page = open_page(Role.ADMIN)
    page.goto("/schedules/")
    page.get_by_role("link", name="Left behind").click()
    page.goto(f"/schedules/{Schedule.objects.get().pk}/build/review/")
    page.get_by_role("button", name="Go to “Message”").click()
    page.get_by_text("Spring offer").click()
    go(page, "Back")
    expect(page.get_by_role("radio", name="Everyone")).to_be_checked()
    page.get_by_role("button", name="Message").first.click()
    expect(page.get_by_role("radio", name="Spring offer")).to_be_checked()


def test_of_two_tabs_the_second_sees_what_the_first_has_changed(world, open_page, errors):
    schedule = ScheduleFactory(name="Mornings", cron="0 9 * * *")
    first = open_page(Role.MARKETER)
    second = first.context.new_page()
    for tab in (first, second):
        tab.goto(f"/schedules/{schedule.pk}/edit/")
    first.locator("#id_at").fill("07:00")
    go(first, "See what this changes")
    expect(first.get_by_role("heading", name="What this changes")).to_be_visible()
    go(first, "Save the change")
    expect(first.get_by_text("The change is saved.")).to_be_visible()

    second.get_by_label("Name").fill("Early mornings")
    go(second, "See what this changes")
    expect(second.get_by_text("You have changed this schedule in another window meanwhile")).to_be_visible()
    expect(second.get_by_label("Name")).to_have_value("Early mornings")
    expect(second.locator("#id_at")).to_have_value("07:00")
    go(second, "See what this changes")
    go(second, "Save the change")
    expect(second.get_by_text("The change is saved.")).to_be_visible()
    schedule.refresh_from_db()
    assert (schedule.name, schedule.cron) == ("Early mornings", "0 7 * * *")
    assert real(errors) == []
