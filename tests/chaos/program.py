"""The long version of every scenario: ``make chaos SEED=17 ARGS="--only kills,race --rounds 2"``.

A line of JSON for each figure goes to standard output, all else to standard error:

    {"figure": "chaos.lost", "value": 0, "scenario": "kills", "seed": 17}

Ends with 1 where somebody was lost, doubled beyond the promise, haunted or stuck, or where recovery took 90 s.
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence

from tests.chaos.oracle import Verdict
from tests.chaos.reporting import figure, fresh_root, leave_on_signals, note
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.scene import Scene
from tests.chaos.world import World, running_world

RECOVERY_S = 90.0
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    note(f"seed {options.seed}: the same run again with SEED={options.seed}")
    leave_on_signals()
    root = fresh_root("chaos")
    try:
        with running_world(root, is_quick=options.quick) as world:
            failed = _run(world, options.only, seed=options.seed, rounds=options.rounds)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    if failed:
        note(f"not in order: {', '.join(failed)}. The processes' output and the stubs' logs are in {root}")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Harm the service and count who was lost.")
    parser.add_argument("--seed", type=int, default=None, help="of everything random here (default: a new one)")
    parser.add_argument("--only", type=_names, default=[*SCENARIOS], help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=1, help="how often each scenario runs")
    parser.add_argument("--quick", action="store_true", help="small crowds and shortened deadlines, as in make test")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - SCENARIOS.keys():
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(sorted(unknown))}")
    return names


def _run(world: World, names: Sequence[str], *, seed: int, rounds: int) -> list[str]:
    """Names of what was not in order. Scenarios come in random order, each round in another."""
    order = random.Random(seed)
    failed = []
    for turn in range(rounds):
        for name in order.sample(names, len(names)):
            note(f"{name} ...")
            begun = time.monotonic()
            try:
                scene = SCENARIOS[name](world, random.Random(f"{name} {turn} {seed}"))
                is_fine = _report(name, scene, scene.verdict(), seed=seed)
            except Exception:  # the others still run
                note(traceback.format_exc())
                is_fine = False
            finally:
                world.calm()
            note(f"{name}: {'in order' if is_fine else 'NOT IN ORDER'} after {time.monotonic() - begun:.0f} s")
            if not is_fine:
                failed.append(name)
    return failed


def _report(name: str, scene: Scene, verdict: Verdict, *, seed: int) -> bool:
    wrong = {kind: getattr(verdict, kind) for kind in ("lost", "doubled", "ghost", "stuck")}
    figures: dict[str, float] = {f"chaos.{kind}": len(cases) for kind, cases in wrong.items()}
    if scene.recovered is not None:
        figures["chaos.recovery_s"] = round(scene.recovered, 1)
    for kind, value in figures.items():
        figure(kind, value, scenario=name, seed=seed)
    note(
        f"  {verdict.expected:,} expected, {verdict.accepted:,} accepted, {verdict.unclear:,} unclear"
        f" ({scene.plan.unclear:,} may be by calls cut off, {len(scene.plan.doubtful):,} people for want of an answer),"
        f" {verdict.repeated:,} push repeats under one collapse id"
    )
    for kind, cases in wrong.items():
        for case in cases[:_SHOWN]:
            note(f"  {kind}: {case}")
    return verdict.is_clean and (scene.recovered or 0.0) < RECOVERY_S


if __name__ == "__main__":
    sys.exit(main())
