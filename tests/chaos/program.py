"""The long version of every scenario: ``make chaos SEED=17 ARGS="--only kills,race --rounds 2"``.

A line of JSON for each figure goes to standard output, all else to standard error:

    {"figure": "chaos.lost", "value": 0, "scenario": "kills", "seed": 17}

Ends with 1 where somebody was lost, doubled beyond the promise, haunted or stuck, or where recovery took 90 s.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from scheduler_project.local.layout import Layout
from scheduler_project.local.locks import is_locked
from tests.chaos.oracle import Verdict
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.scene import Scene
from tests.chaos.world import World, running_world
from tests.running import PROJECT

RECOVERY_S = 90.0
# The servers of a run that has just ended stop within about a second.
_FREE_WITHIN_S = 20.0
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    note(f"seed {options.seed}: the same run again with SEED={options.seed}")
    # However it is asked to end, every block is left, so every process ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    root = _root()
    try:
        with running_world(root, is_quick=options.quick) as world:
            failed = _run(world, options.only, seed=options.seed, rounds=options.rounds)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    if failed:
        note(f"not in order: {', '.join(failed)}. The processes' output and the stubs' logs are in {root}")
    return 1 if failed else 0


def _root() -> Path:
    """An empty folder below ``.local`` (or LOCAL_DIR); what the run before left is gone."""
    root = Path(os.environ.get("LOCAL_DIR") or PROJECT / ".local").expanduser().resolve() / "chaos"
    keeper = Layout(root / "local").keeper_lock
    deadline = time.monotonic() + _FREE_WITHIN_S
    while keeper.exists() and is_locked(keeper):
        if time.monotonic() > deadline:
            sys.exit(f"Another run works in {root}: wait for it, or set LOCAL_DIR to a folder of your own.")
        time.sleep(0.1)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


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
    for figure, value in figures.items():
        line = {"figure": figure, "value": value, "scenario": name, "seed": seed}
        sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    note(
        f"  {verdict.expected:,} expected, {verdict.accepted:,} accepted, {verdict.unclear:,} unclear"
        f" ({scene.plan.unclear:,} may be by calls cut off, {len(scene.plan.doubtful):,} people for want of an answer),"
        f" {verdict.repeated:,} push repeats under one collapse id"
    )
    for kind, cases in wrong.items():
        for case in cases[:_SHOWN]:
            note(f"  {kind}: {case}")
    return verdict.is_clean and (scene.recovered or 0.0) < RECOVERY_S


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
