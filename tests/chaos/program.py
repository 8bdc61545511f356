"""The long version of every scenario: ``make chaos SEED=17 ARGS="--only kills,race --rounds 2"``.

A line of JSON for each figure goes to standard output, and one for each scenario; all else, a table in the end, to
standard error:

    {"figure": "chaos.lost", "value": 0, "scenario": "kills", "world": "small", "seed": 17}

Ends with 1 where somebody was lost, doubled beyond the promise, haunted or stuck, or where recovery took 90 s, or where
the API's requests were not answered.
"""

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scheduler_project.local.errors import LocalServicesError
from tests.chaos.deployment import running_deployment
from tests.chaos.hour import hour
from tests.chaos.oracle import Verdict
from tests.chaos.reporting import figure, fresh_root, leave_on_signals, note
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.scene import Scene
from tests.chaos.topology import DEPLOYED
from tests.chaos.world import POINTS, World, running_world

RECOVERY_S = 90.0
# The share of the API's requests that must be answered where half of the servers are lost.
API_SUCCESS = 0.999
# What needs no deployment, and is done to one all the same.
ALSO = ("kills", "crashes", "halts", "delayed")
LAST = hour.__name__
_SHOWN = 10
_KINDS = ("lost", "doubled", "ghost", "stuck")


@dataclass(frozen=True)
class Result:
    """Of a scenario, as it is told. ``late``: calls too long after a pause, a stop, a cancellation or an erasure."""

    scenario: str
    world: str
    seed: int
    points: int
    expected: int
    accepted: int
    unclear: int
    lost: int
    doubled: int
    ghost: int
    stuck: int
    late: int
    recovery_s: float | None
    api_success: float | None
    seconds: float

    @property
    def is_fine(self) -> bool:
        is_clean = not (self.lost or self.doubled or self.ghost or self.stuck)
        answered = self.api_success is None or self.api_success >= API_SUCCESS
        return is_clean and answered and (self.recovery_s or 0.0) < RECOVERY_S


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    note(f"seed {options.seed}: the same run again with SEED={options.seed}")
    leave_on_signals()
    root = fresh_root("deployed-chaos" if options.deployment else "chaos")
    results: list[Result] = []
    try:
        with _world(options, root) as world:
            failed = _run(world, options, results)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except LocalServicesError as error:  # for want of a program of the system's, say
        note(str(error))
        return 1
    finally:
        _show(results)
    if failed:
        note(f"not in order: {', '.join(failed)}. The processes' output and the stubs' logs are in {root}")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Harm the service and count who was lost.")
    parser.add_argument("--seed", type=int, default=None, help="of everything random here (default: a new one)")
    parser.add_argument("--deployment", action="store_true", help="harm what make cluster runs, not the small fleet")
    parser.add_argument(
        "--only", default="", help=f"some of {','.join(SCENARIOS)}; of a deployment {','.join(DEPLOYED)} too"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each scenario runs")
    parser.add_argument("--points", type=int, default=POINTS, help="at how many random instants each one strikes")
    parser.add_argument("--quick", action="store_true", help="small crowds and shortened deadlines, as in make test")
    options = parser.parse_args(arguments)
    if options.deployment and options.quick:
        parser.error("a deployment has no quick version: leave out --quick, or ask for fewer --points")
    known: Mapping[str, Any] = {**SCENARIOS, **DEPLOYED} if options.deployment else SCENARIOS
    options.only = (
        options.only.split(",") if options.only else [*ALSO, *DEPLOYED] if options.deployment else [*SCENARIOS]
    )
    if unknown := set(options.only) - known.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def _world(options: argparse.Namespace, root: Path) -> AbstractContextManager[World]:
    if options.deployment:
        return running_deployment(root, points=options.points)
    return running_world(root, is_quick=options.quick, points=options.points)


def _run(world: World, options: argparse.Namespace, results: list[Result]) -> list[str]:
    """Names of what was not in order. Scenarios come in random order, each round in another, but for the hour.

    Thousands of occurrences would make each look at the books behind it slow, so it is the last.
    """
    scenarios: Mapping[str, Callable[[Any, random.Random], Scene]] = {**SCENARIOS, **DEPLOYED}
    order = random.Random(options.seed)
    failed = []
    for turn in range(options.rounds):
        for name in sorted(order.sample(options.only, len(options.only)), key=LAST.__eq__):
            note(f"{name} ...")
            begun = time.monotonic()
            try:
                scene = scenarios[name](world, random.Random(f"{name} {turn} {options.seed}"))
                verdict = scene.verdict()
                result = _result(name, scene, verdict, options, seconds=time.monotonic() - begun)
                _report(result, scene, verdict)
                results.append(result)
                is_fine = result.is_fine
            except Exception:  # the others still run
                note(traceback.format_exc())
                is_fine = False
            finally:
                world.calm()
            note(f"{name}: {'in order' if is_fine else 'NOT IN ORDER'} after {time.monotonic() - begun:.0f} s")
            if not is_fine:
                failed.append(name)
    return failed


def _result(name: str, scene: Scene, verdict: Verdict, options: argparse.Namespace, *, seconds: float) -> Result:
    return Result(
        scenario=name,
        world="deployment" if options.deployment else "small",
        seed=options.seed,
        points=scene.points,
        expected=verdict.expected,
        accepted=verdict.accepted,
        unclear=verdict.unclear,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        ghost=len(verdict.ghost),
        stuck=len(verdict.stuck),
        late=verdict.late,
        recovery_s=None if scene.recovered is None else round(scene.recovered, 1),
        api_success=None if scene.api_success is None else round(scene.api_success, 5),
        seconds=round(seconds),
    )


def _report(result: Result, scene: Scene, verdict: Verdict) -> None:
    told = asdict(result)
    for name in (*_KINDS, "late", "recovery_s", "api_success"):
        if told[name] is not None:
            figure(f"chaos.{name}", told[name], scenario=result.scenario, world=result.world, seed=result.seed)
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    note(
        f"  {verdict.expected:,} expected, {verdict.accepted:,} accepted, {verdict.unclear:,} unclear"
        f" ({scene.plan.unclear:,} may be by calls cut off, {len(scene.plan.doubtful):,} people for want of an answer),"
        f" {verdict.repeated:,} push repeats under one collapse id"
    )
    for kind in _KINDS:
        for case in getattr(verdict, kind)[:_SHOWN]:
            note(f"  {kind}: {case}")


def _show(results: Sequence[Result]) -> None:
    columns = [name for name in Result.__dataclass_fields__ if name not in ("world", "seed")]
    table = Table(*columns)
    for result in results:
        told = asdict(result)
        table.add_row(*("" if told[name] is None else str(told[name]) for name in columns))
    if results:
        Console(stderr=True, width=200).print(table)


if __name__ == "__main__":
    sys.exit(main())
