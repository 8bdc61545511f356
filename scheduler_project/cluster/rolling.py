"""A restart of everything, one process after another, as an upgrade does it: nobody is refused, nothing is lost.

What is asked by others is taken out of the proxy first. A zone's PgBouncer begins anew while no request comes by there;
the zone's workers find their connections gone between two transactions, and connect again.
"""

import time
from collections.abc import Callable, Mapping

from scheduler_project.cluster.cluster import ASKED, Cluster
from scheduler_project.cluster.zones import ZONES

# A request may take so long; then it is not waited for any more.
_EMPTY_S = 25.0
_POLL_S = 0.05


def restart_all(cluster: Cluster, *, said: Callable[[str], None] = lambda _: None) -> Mapping[str, float]:
    """Seconds that each process took to end, by name; infinite for one that had to be killed.

    Raises LocalServicesError when one doesn't come back.
    """
    took: dict[str, float] = {}
    for zone in ZONES:
        asked = [each.name for each in cluster.processes(zone=zone) if each.kind in ASKED]
        _drain(cluster, asked)
        for each in cluster.processes(zone=zone, kind="pgbouncer"):
            took[each.name] = cluster.restart(each.name)
        for name in asked:
            took[name] = cluster.restart(name)
            said(f"{name} ended in {took[name]:.1f} s and is back")
        _use(cluster, asked)
        for each in cluster.processes(zone=zone):
            if each.name not in took:
                took[each.name] = cluster.restart(each.name)
                said(f"{each.name} ended in {took[each.name]:.1f} s and is back")
    cluster.renew_proxy()
    said("the proxy has begun anew")
    return took


def _drain(cluster: Cluster, names: list[str]) -> None:
    """Until nothing is under way there. Open streams are not waited for: they come again by themselves."""
    servers = [_server(name) for name in names]
    for server in servers:
        cluster.proxy.drain(server)
    deadline = time.monotonic() + _EMPTY_S
    web = [server for server in servers if server.startswith("web/")]
    while any(cluster.proxy.sessions(server) for server in web) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _use(cluster: Cluster, names: list[str]) -> None:
    for name in names:
        cluster.proxy.use(_server(name))
    cluster.await_led(*names)


def _server(name: str) -> str:
    """As the proxy calls it."""
    return f"{name.rpartition('-')[0]}/{name}"
