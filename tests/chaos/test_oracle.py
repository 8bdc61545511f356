"""The oracle itself: what it must find, it finds; what is in order, it lets pass."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos import hour, soak, topology
from tests.chaos.oracle import Accepted, Person, Plan, Row, Schedule, Span, Verdict, digest_of, judge, text_of

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
ANN = Person("ann", frozenset({"all"}), email="ann@all.example", tokens=("ann-token",))
BOB = Person("bob", frozenset({"other"}), email="bob@other.example")


def s(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def plan(*schedules: Schedule, people: tuple[Person, ...] = (ANN, BOB), **more) -> Plan:
    made = schedules or (schedule(),)
    return Plan({person.name: person for person in people}, {each.name: each for each in made}, **more)


def schedule(name: str = "news", *, channel: str = "email", **more) -> Schedule:
    return Schedule(name, channel, [Span(s(-60), s(-60), "all", NOW, f"{name} first")], **more)


def mail(at: float = 1, to: str = "ann@all.example", words: str = "news first", **more) -> Accepted:
    return Accepted(s(at), more.pop("channel", "email"), to, words, **more)


def row(state: str = "sent", reason: str = "", *, name: str = "news", person: str = "ann") -> Row:
    return Row(name, person, state, reason)


def found(verdict: Verdict) -> dict[str, int]:
    kinds = ("lost", "doubled", "ghost", "stuck")
    return {kind: len(getattr(verdict, kind)) for kind in kinds if getattr(verdict, kind)}


def test_one_message_to_the_one_who_is_meant_is_in_order() -> None:
    verdict = judge(plan(), [mail(digest=digest_of(text_of("news first", "ann")))], [row()])
    assert found(verdict) == {}
    assert (verdict.expected, verdict.accepted) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([], "lost"),
        ([row("sent")], "lost"),
        ([row("failed", "provider_error")], "lost"),
        ([row("rate_limited", "daily_cap")], "lost"),
        ([row("cancelled", "cancelled")], "lost"),
        ([row("expired", "")], "lost"),
        ([row("failed", "outcome_unknown")], "lost"),
        ([row("pending")], "stuck"),
        ([row("unknown", "no_answer")], "stuck"),
    ],
)
def test_who_got_nothing_needs_an_outcome_whose_reason_holds(rows: list[Row], kind: str) -> None:
    assert found(judge(plan(), [], rows)) == {kind: 1}


def test_reasons_that_hold_account_for_who_got_nothing() -> None:
    refused = schedule(refused=frozenset({"ann"}))
    cancelled = schedule()
    cancelled.change("cancel", begun=s(-1), done=s(-1))
    assert found(judge(plan(refused), [], [row("failed", "provider_error")])) == {}
    assert found(judge(plan(cancelled), [], [row("cancelled", "cancelled")])) == {}
    assert found(judge(plan(erased={"ann": s(-1)}), [], [row("erased", "profile_gone")])) == {}
    assert found(judge(plan(unclear=1), [], [row("failed", "outcome_unknown")])) == {}


def test_twice_is_doubled_but_a_push_that_collapses_is_within_the_promise() -> None:
    assert found(judge(plan(), [mail(1), mail(2)], [row()])) == {"doubled": 1}
    push = plan(schedule(channel="push"))
    copies = [mail(at, "ann-token", channel="push", collapse="c1") for at in (1, 2, 3)]
    verdict = judge(push, copies, [row()])
    assert found(verdict) == {}
    assert verdict.repeated == 2
    copies[2] = copies[2]._replace(collapse="c2")
    assert found(judge(push, copies, [row()])) == {"doubled": 1}


@pytest.mark.parametrize(
    "message",
    [
        mail(-0.2),
        mail(1, digest=digest_of(text_of("news first", "bob"))),
        mail(1, "ann-token", channel="push"),
    ],
)
def test_too_early_another_text_and_another_channel_are_ghosts(message: Accepted) -> None:
    assert found(judge(plan(), [message], [row()])) == {"ghost": 1}


def test_who_is_not_meant_is_a_ghost_by_message_and_by_row() -> None:
    verdict = judge(plan(), [mail(), mail(1, "bob@other.example"), mail(1, "eve@x.example")], [row()])
    assert found(verdict) == {"ghost": 3}  # bob's message, that the ledger has no row for it, and eve's
    refuses = Person("ann", frozenset({"all"}), email="ann@all.example", refuses=frozenset({"email"}))
    assert found(judge(plan(people=(refuses,)), [mail()], [row()])) == {"ghost": 1}


@pytest.mark.parametrize("kind", ["pause", "cancel", "delete"])
def test_five_seconds_after_a_pause_a_cancel_or_a_delete_no_call_starts(kind: str) -> None:
    for at, expected in ((4.9, {}), (6.2, {"ghost": 1})):
        changed = schedule()
        changed.change(kind, begun=s(0.5), done=s(1))
        assert found(judge(plan(changed), [mail(at)], [row()])) == expected


def test_a_paused_schedule_goes_on_after_its_resume_and_its_delay_counts_from_the_stub() -> None:
    resumed = schedule()
    resumed.change("pause", begun=s(1), done=s(1))
    resumed.change("resume", begun=s(20), done=s(20))
    assert found(judge(plan(resumed), [mail(15)], [row()])) == {"ghost": 1}
    assert found(judge(plan(resumed), [mail(21)], [row()])) == {}
    assert found(judge(plan(resumed, latency=timedelta(seconds=10)), [mail(15)], [row()])) == {}


def test_an_edit_moves_words_people_and_time() -> None:
    edited = schedule()
    edited.change("edit", begun=s(1), done=s(1), words="news second", group="other", at=s(10))
    bob = mail(11, "bob@other.example", "news second")
    told = [row("cancelled", "edited"), row(person="bob")]
    assert found(judge(plan(edited), [bob], told)) == {}
    assert found(judge(plan(edited), [bob._replace(at=s(9))], told)) == {"ghost": 1}
    assert found(judge(plan(edited), [bob, mail(12)], [row(), told[1]])) == {"ghost": 1}


def test_an_erased_person_gets_nothing_five_seconds_later() -> None:
    assert found(judge(plan(erased={"ann": s(0)}), [mail(7)], [row()])) == {"ghost": 1}


def test_what_the_ledger_denies_is_a_ghost() -> None:
    assert found(judge(plan(unclear=1), [mail()], [row("failed", "outcome_unknown")])) == {}
    assert found(judge(plan(), [mail()], [row("expired", "down")])) == {"ghost": 1}


def test_caps_are_counted_by_what_was_accepted() -> None:
    three = [schedule(f"s{number}", per_day=2) for number in range(3)]
    rows = [row(name="s0"), row(name="s1"), row("rate_limited", "daily_cap", name="s2")]
    messages = [mail(number, words=f"s{number} first") for number in range(3)]
    assert found(judge(plan(*three), messages[:2], rows)) == {}
    assert found(judge(plan(*three), messages[:1], [*rows[:1], *rows[2:], row("sent", name="s1")])) == {"lost": 2}
    assert found(judge(plan(*three), messages, [*rows[:2], row(name="s2")])) == {"ghost": 1}


def test_a_week_s_messages_are_counted_over_days_but_those_that_do_not_count_are_not() -> None:
    before = [schedule(f"s{number}", aged=timedelta(days=3)) for number in range(2)]
    notice = schedule("notice", counts=False)
    both = [schedule(f"s{number}", per_day=3, per_week=3) for number in (2, 3)]
    all_of_them = plan(*before, notice, *both)
    rows = [*(row(name=name) for name in ("s0", "s1", "notice", "s2")), row("rate_limited", "weekly_cap", name="s3")]
    messages = [mail(number, words=f"{name} first") for number, name in enumerate(["s0", "s1", "notice", "s2", "s3"])]
    assert found(judge(all_of_them, messages[:4], rows)) == {}
    assert found(judge(all_of_them, messages, [*rows[:4], row(name="s3")])) == {"ghost": 1}
    one_less = [row("failed", "provider_error", name="s0"), *rows[1:]]
    assert found(judge(all_of_them, messages[1:4], one_less)) == {"lost": 2}
    ten_days_ago = [replace(each, aged=timedelta(days=10)) for each in before]
    assert found(judge(plan(*ten_days_ago, notice, *both), messages[:4], rows)) == {"lost": 1}
    assert found(judge(plan(*ten_days_ago, notice, *both), messages, [*rows[:4], row(name="s3")])) == {}


def test_whose_provider_does_not_answer_may_be_unclear_and_nobody_else() -> None:
    unclear = [row("failed", "outcome_unknown")]
    assert found(judge(plan(doubtful={"ann"}), [], unclear)) == {}
    assert found(judge(plan(doubtful={"bob"}), [], unclear)) == {"lost": 1}


def test_everyone_is_due_at_their_own_hour_gaps_and_bad_zones_included() -> None:
    wall = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)
    local = Schedule(
        "news", "email", [Span(s(-1e8), s(-1e8), "all", wall, "news first")], local=True, zone="Asia/Tokyo"
    )
    due = {zone: local.due(local.spans[0], Person("x", frozenset(), zone=zone)) for zone in ("Europe/Berlin", "Mars/X")}
    assert due["Europe/Berlin"] == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 02:30 does not exist: 03:30
    assert due["Mars/X"] == datetime(2026, 3, 28, 17, 30, tzinfo=UTC)
    later = Person("ann", frozenset({"all"}), zone="America/New_York", email="ann@all.example")
    berlin_s_hour = datetime(2026, 3, 29, 1, 31, tzinfo=UTC)
    message = mail()._replace(at=berlin_s_hour)
    assert found(judge(plan(local, people=(later,)), [message], [row()])) == {"ghost": 1}


def test_who_was_past_is_skipped_and_what_comes_late_is_noticed() -> None:
    kiritimati = Person("ann", frozenset({"all"}), zone="Pacific/Kiritimati", email="ann@all.example")
    local = schedule(local=True)
    assert found(judge(plan(local, people=(kiritimati,)), [], [row("expired", "past_zone")])) == {}
    assert found(judge(plan(local, people=(kiritimati,)), [mail()], [row()])) == {"ghost": 1}
    at_once = schedule(local=True, on_past="send_now")
    assert found(judge(plan(at_once, people=(kiritimati,)), [mail()], [row()])) == {}
    assert found(judge(plan(at_once, people=(kiritimati,)), [], [row("expired", "past_zone")])) == {"lost": 1}
    quick = schedule(within=timedelta(seconds=10))
    assert found(judge(plan(quick), [mail(11)], [row()])) == {"stuck": 1}


def test_what_is_unsettled_is_stuck() -> None:
    assert found(judge(plan(), [mail()], [row()], unsettled=["books don't close"])) == {"stuck": 1}


def test_an_address_that_gave_something_back_is_left_alone_and_nobody_else_is_suppressed() -> None:
    barred = plan(barred={"ann": s(5)})
    assert found(judge(barred, [mail(4)], [row()])) == {}
    assert found(judge(barred, [mail(6)], [row()])) == {"ghost": 1}
    assert found(judge(barred, [], [row("suppressed", "bounced")])) == {}
    assert found(judge(plan(), [], [row("suppressed", "bounced")])) == {"lost": 1}
    in_app = plan(schedule(channel="in_app"), barred={"ann": s(5)})
    assert found(judge(in_app, [], [row("suppressed", "bounced")])) == {"lost": 1}


@pytest.mark.parametrize(("ends", "begins"), [("stop", "go"), ("pause", "resume")])
def test_a_call_too_long_after_a_stop_is_late_until_it_is_taken_back(ends: str, begins: str) -> None:
    held = schedule()
    held.change(ends, begun=s(10), done=s(11))
    for at, late in ((15, 0), (17, 1)):
        verdict = judge(plan(held), [mail(at)], [row()])
        assert (len(verdict.ghost), verdict.late) == (late, late)
    held.change(begins, begun=s(20), done=s(21))
    verdict = judge(plan(held), [mail(22)], [row()])
    assert (found(verdict), verdict.late) == ({}, 0)
    assert judge(plan(erased={"ann": s(0)}), [mail(7)], [row()]).late == 1
    assert judge(plan(), [mail(-10)], [row()]).late == 0  # too early is not too late


# What an hour of thousands of schedules counts

TEN, ELEVEN = (1, s(3600)), (1, s(7200))


@pytest.mark.parametrize(
    ("opened", "inbox", "kind"),
    [
        ({TEN: 1}, {(*TEN, 7): 1, (*TEN, 8): 1}, {}),
        ({}, {}, {"lost": 1}),
        ({TEN: 1}, {(*TEN, 7): 1}, {"lost": 1}),
        ({TEN: 2}, {(*TEN, 7): 1, (*TEN, 8): 1}, {"doubled": 1}),
        ({TEN: 1}, {(*TEN, 7): 2, (*TEN, 8): 1}, {"doubled": 1}),
        ({TEN: 1, ELEVEN: 1}, {(*TEN, 7): 1, (*TEN, 8): 1}, {"ghost": 1}),
        ({TEN: 1}, {(*TEN, 7): 1, (*TEN, 8): 1, (*TEN, 9): 1}, {"ghost": 1}),
    ],
)
def test_each_occurrence_is_there_once_and_reaches_its_people(opened, inbox, kind) -> None:
    assert found(hour.judge({TEN: 2}, opened, inbox)) == kind


def test_a_clock_that_goes_ahead_and_back_reaches_an_instant_when_it_first_shows_it() -> None:
    hour_ahead = timedelta(hours=1)
    shown = [(s(0), timedelta(0)), (s(10), hour_ahead), (s(20), timedelta(0))]
    assert topology.reached(s(5), after=s(0), shown=shown) == s(5)
    assert topology.reached(s(3_600), after=s(0), shown=shown) == s(10)
    assert topology.reached(s(3_615), after=s(0), shown=shown) == s(15)
    assert topology.reached(s(3_600), after=s(12), shown=shown) == s(12)
    assert topology.reached(s(3_625), after=s(0), shown=shown) == s(3_625)


# What a soak counts besides


def test_a_rate_is_kept_by_whoever_lets_one_bucket_through_at_once_and_no_more() -> None:
    steady = [number / 10 for number in range(100)]
    assert soak.over_quota(steady, rate=10) == 1
    assert soak.over_quota([0.0] * 10 + [1 + each for each in steady], rate=10) == 10
    assert soak.over_quota(sorted([*steady, *[4.0] * 25]), rate=10) == 26
    assert soak.over_quota([], rate=10) == 0


def test_two_runs_are_even_that_take_turns_and_uneven_one_after_the_other() -> None:
    names = [f"{number} first" for number in (0, 1)]
    in_turn = [mail(number / 10, words=names[number // 5 % 2]) for number in range(100)]
    assert soak.unevenness(in_turn, names) == 0
    in_a_row = [mail(number / 10, words=names[number // 50]) for number in range(100)]
    assert soak.unevenness(in_a_row, names) == 1
    assert soak.unevenness([], names) == 0


def test_who_bounces_is_barred_once_that_could_be_heard() -> None:
    addresses = [f"{number}@x.example" for number in range(1_000)]
    barred = soak.barred_by([(NOW, address) for address in addresses])
    assert 20 < len(barred) < 80
    assert all(s(soak.LEFT_ALONE_S) < at < s(soak.LEFT_ALONE_S + 2) for at in barred.values())
    late = soak.barred_by([(NOW, address) for address in addresses], away=(s(-1), s(30)))
    assert {*late.values()} == {s(30 + soak.HEARD_AGAIN_S + soak.LEFT_ALONE_S)}
