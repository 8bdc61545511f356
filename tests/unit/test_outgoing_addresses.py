"""Addresses as strangers write them: which are called, at what number, and that nothing else is connected to."""

import socket
from ipaddress import ip_address, ip_network

import pytest
from urllib3.util import connection

from schedules import outgoing
from schedules.checks import check_outgoing_networks
from tests.corpora import corpus


@pytest.fixture
def organisation(settings) -> None:
    settings.OUTGOING_PORTS = [443, 8443]
    settings.OUTGOING_ALLOWED_NETWORKS = [ip_network("10.20.0.0/16"), ip_network("fd00:20::/32")]
    settings.OUTGOING_REFUSED_NETWORKS = [ip_network("203.0.114.0/24"), ip_network("10.20.99.0/24")]


def outcome(line, monkeypatch) -> tuple[str | None, list[str]]:
    """The code of the refusal (None: it was called), and the numbers that were connected to, none of which answers."""
    dialled: list[str] = []

    def answers(host, port, *_, **__):
        if not (numbers := line.get("leads_to", ["127.0.0.1"])):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in numbers]

    def connect(place, *_, **__):
        dialled.append(place[0])
        raise OSError("nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    monkeypatch.setattr(connection, "create_connection", connect)
    with pytest.raises(outgoing.OutgoingError) as raised:
        outgoing.fetch(line["url"], timeout_s=5)
    code = raised.value.code
    return (None if code == "unreachable" else code), dialled


def test_every_line_is_refused_as_it_says_or_called_where_its_name_leads(organisation, monkeypatch):
    lines, wrong = corpus("addresses"), []
    for line in lines:
        code, dialled = outcome(line, monkeypatch)
        wanted = [] if line["code"] else [str(ip_address(number)) for number in line["leads_to"]]
        if (code, dialled) != (line["code"], wanted):
            wrong.append(f"{line} became {code}, connected to {dialled}")
    assert not wrong, "\n".join(wrong)
    assert len([line for line in lines if line["code"]]) >= 200


@pytest.mark.parametrize(
    ("allowed", "refused", "is_fault"),
    [
        ([], [], False),
        (["10.20.0.0/16", "fd00:20::/32", "192.168.0.0/16"], [], False),
        (["127.0.0.0/8"], [], True),
        (["127.0.0.1/32"], [], True),
        (["0.0.0.0/0"], [], True),
        (["169.254.169.254/32"], [], True),
        (["::1/128"], [], True),
        (["fd00::/8"], [], True),
        (["127.0.0.1/32"], ["127.0.0.0/8"], False),
        (["fd00::/8"], ["fd00:ec2::/32", "fd20:ce::/32"], False),
    ],
)
def test_a_deployment_whose_users_may_call_its_own_machine_is_at_fault(settings, allowed, refused, is_fault):
    settings.OUTGOING_ALLOWED_NETWORKS = [ip_network(each) for each in allowed]
    settings.OUTGOING_REFUSED_NETWORKS = [ip_network(each) for each in refused]
    assert [fault.id for fault in check_outgoing_networks(None)] == ["schedules.E010"] * is_fault
