"""The image without Docker: built as deploy/Dockerfile says, and run as it will be, to see that it can.

    python -m deploy.image [--folder FOLDER]      as root, on Linux; about five minutes, of which three make packages

The Dockerfile's own steps are run in a root of their own. Then each role of ``scheduler_project.entry`` starts as user
10001 on a root that is read-only but for what the Dockerfile names, with no package of this machine's; a check goes
through all of them (``smoke``); and each is told to end. What is missing in deploy/requirements.txt, what is written
elsewhere, and what does not end in time shows. PostgreSQL, Redis and the stubs of providers are those of
``make cluster``, in a network of their own. ``--folder`` keeps the packages for the next time.
"""

import argparse
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scheduler_project.cluster.ground import Ground, standing
from scheduler_project.local import fleet

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
USER = 10001
GRACE_S = 30.0
_READY_S = 300.0
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc", "dev", "proc")
_ROLES = (
    *(("web",), ("streams",), ("beat",), ("poll-ses-events",)),
    *(("worker", queue) for queue in fleet.CONCURRENCY),
)
# A root of tmpfs: $1; what is bound there, "from:to" in each of $2; then what to run, in that root.
_ENCLOSED = """
root=$1; shift
mount -t tmpfs tmpfs "$root"
while [ "$1" != -- ]; do
    from=${1%%:*}; to=$root${1#*:}
    if [ -L "$from" ]; then cp -P "$from" "$to"
    elif [ -d "$from" ]; then mkdir -p "$to"; mount --rbind "$from" "$to"
    else mkdir -p "$(dirname "$to")"; touch "$to"; mount --bind "$from" "$to"; fi
    shift
done
shift
while [ "$1" != -- ]; do
    to=$root$1; mkdir -p "$to"
    if mountpoint -q "$to"; then mount -o remount,bind,ro "$to"; else mount -t tmpfs -o mode=1777 tmpfs "$to"; fi
    shift
done
shift
[ "$READ_ONLY" = no ] || mount -o remount,ro "$root"
exec "$@"
"""


class Failed(Exception):
    """The image would not do; the words say why."""


def instructions(stage: int = -1) -> list[tuple[str, str]]:
    """Of the Dockerfile, each with its words, whole; of the stage of that number, or of all."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found, stages = [], -1
    for line in filter(str.strip, joined.splitlines()):
        name, _, said = line.partition(" ")
        stages += name == "FROM"
        if stage in (-1, stages):
            found.append((name, said.strip()))
    return found


@dataclass(frozen=True)
class Image:
    """Below ``folder``: /app and /opt/venv, as the Dockerfile makes them, by this machine's Python."""

    folder: Path

    def build(self) -> None:
        """Raises ``Failed``."""
        shutil.rmtree(self.folder / "app", ignore_errors=True)
        for name in ("app", "venv", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        env: dict[str, str] = {}
        for name, said in instructions(0):
            if name == "ENV":
                env |= _variables(said)
            elif name == "COPY":
                self._copy(said)
            elif name == "RUN" and not ("/opt/venv" in said and "-m venv" in said and self._has_packages()):
                _tell(f"RUN {said[:100]}")
                self._run(said, env)

    def command(self, *arguments: str, env: Mapping[str, str]) -> list[str]:
        """Of a container with these arguments, in this process's network."""
        given = {**_variables(" ".join(said for name, said in instructions(1) if name == "ENV")), **env}
        given["PATH"] = given["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
        system = [f"/{name}:/{name}" for name in _SYSTEM if os.path.lexists(f"/{name}")]
        bound = [*system, f"{sys.base_prefix}:{sys.base_prefix}", *self._own()]
        closed = ["/app", "/opt/venv", "/tmp", "/run/metrics"]  # noqa: S108 - of the container
        inside = ["chroot", f"--userspec={USER}:{USER}", str(self.folder / "root"), "env", "-i", "-C", "/app"]
        inside += [f"{name}={value}" for name, value in given.items()]
        entry = ["/opt/venv/bin/python", "-m", "scheduler_project.entry", *arguments]
        return [*_enclosing(self.folder / "root"), *bound, "--", *closed, "--", *inside, *entry]

    def _run(self, said: str, env: Mapping[str, str]) -> None:
        """A step of the build, which may use whatever this machine gets its packages by."""
        tops = [each for each in Path("/").iterdir() if each.name not in ("app", "opt", "tmp")]
        more = [each for each in Path("/opt").glob("*") if each.name != "venv"]
        bound = [f"{each}:{each}" for each in (*tops, *more)] + self._own()
        path = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"
        given = {name: value.replace("$PATH", path) for name, value in env.items()}
        inside = ["chroot", str(self.folder / "root"), "env", "-C", "/app", *(f"{k}={v}" for k, v in given.items())]
        command = [*_enclosing(self.folder / "root"), *bound, "--", "/tmp", "--", *inside, "sh", "-ec", said]  # noqa: S108
        done = subprocess.run(  # noqa: S603 - the Dockerfile's
            command, env={**os.environ, "READ_ONLY": "no"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"RUN {said}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _own(self) -> list[str]:
        return [f"{self.folder}/app:/app", f"{self.folder}/venv:/opt/venv"]

    def _copy(self, said: str) -> None:
        *sources, target = said.split()
        for source in sources:
            into = self.folder / "app" / (Path(source).name if target == "./" else target)
            into.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__", "*.mo"))
            else:
                shutil.copy(ROOT / source, into)

    def _has_packages(self) -> bool:
        return (self.folder / "venv" / "bin" / "python").exists()


def _enclosing(root: Path) -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _ENCLOSED, "enclosed", str(root)]


def _variables(said: str) -> dict[str, str]:
    return dict(each.split("=", 1) for each in said.split())


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)  # noqa: T201


def check(image: Image, ground: Ground, logs: Path) -> None:
    """Every role at once, a check through all of them, and their end. Raises ``Failed``."""
    logs.mkdir(exist_ok=True)
    service = {**_of_a_container(ground), "DATABASE_URL": ground.as_application}
    client_id, secret = ground.client()
    outside = {**service, "CLIENT_ID": client_id, "CLIENT_SECRET": secret}
    owner = {**service, "DATABASE_URL": ground.database, "APP_DATABASE_PASSWORD": _password(ground)}
    _once(image, "migrate", env=owner)
    _once(image, "manage", "check", "--database", "default", env=service)
    with ExitStack() as opened:
        running = {}
        for role in _ROLES:
            log = opened.enter_context((logs / f"{'-'.join(role)}.log").open("w"))
            multiple = {"PROMETHEUS_MULTIPROC_DIR": "/run/metrics"} if role == ("web",) else {}
            command = image.command(*role, env={**service, **multiple})
            running[role] = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
            opened.callback(running[role].kill)
        for role, process in running.items():
            _await(image, role, process, service, logs)
        at = "http://127.0.0.1:8000"
        metrics = ("--as-proxy", "--timeout", "60", "--patience", "120")
        _once(image, "manage", "smoke", at, *metrics, env=outside)
        _once(image, "manage", "smoke", at, *metrics, "--channel", "email", "--address", "a@example.com", env=outside)
        for role, (seconds, code) in _ended(running):
            _tell(f"{' '.join(role)} ended with {code} after {seconds:.1f} s")
            if code or seconds > GRACE_S:
                raise Failed(f"{' '.join(role)} did not end in order: see {logs}")


def _await(
    image: Image, role: Sequence[str], process: "subprocess.Popen[bytes]", env: Mapping[str, str], logs: Path
) -> None:
    """Until its own health check, the one that a container has, agrees."""
    deadline = time.monotonic() + _READY_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{' '.join(role)} does not work: see {logs}")
        if role[0] == "poll-ses-events":  # it has none
            return
        done = subprocess.run(image.command("probe", *role, env=env), capture_output=True, check=False)  # noqa: S603
        if not done.returncode:
            _tell(f"{' '.join(role)} works")
            return


def _ended(
    running: Mapping[tuple[str, ...], "subprocess.Popen[bytes]"],
) -> Iterator[tuple[tuple[str, ...], tuple[float, int]]]:
    begun = time.monotonic()
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    left = dict(running)
    while left:
        for role, process in list(left.items()):
            code = process.poll()
            if code is None and time.monotonic() - begun <= GRACE_S + 1:
                continue
            yield role, (time.monotonic() - begun, -1 if code is None else code)
            del left[role]
        time.sleep(0.05)


def _once(image: Image, *arguments: str, env: Mapping[str, str]) -> None:
    done = subprocess.run(image.command(*arguments, env=env), capture_output=True, text=True, check=False)  # noqa: S603
    _tell(f"{' '.join(arguments)}\n{done.stdout}")
    if done.returncode:
        raise Failed(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


def _of_a_container(ground: Ground) -> dict[str, str]:
    """What the service is told, and nothing else of this machine."""
    told = ("AWS_", "BROKER_", "COUNTERS_", "EMAIL_", "PUSH_", "FCM_", "SES_", "BEHIND_", "TRUSTED_")
    kept = {
        name: value
        for name, value in ground.environment.items()
        if name.startswith(told) or name.endswith(("_KEY", "_KEYS"))
    }
    return {**kept, "FCM_CREDENTIALS": Path(kept["FCM_CREDENTIALS"]).read_text()}  # its file lies elsewhere


def _password(ground: Ground) -> str:
    return ground.as_application.partition("://")[2].partition("@")[0].partition(":")[2]


def _loopback() -> None:
    """A new network has nothing, and its loopback is down (netdevice(7))."""
    siocsifflags, up = 0x8914, 0x1
    with socket.socket() as asked:
        fcntl.ioctl(asked, siocsifflags, struct.pack("16sh", b"lo", up))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description="Build and run the image by hand.")
    parser.add_argument("--folder", type=Path, default=None, help="where all of it is made, and kept")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() or sys.platform != "linux":
        _tell("This needs root on Linux: it makes namespaces of its own.")
        return 2
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="image-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    image = Image(folder)
    try:
        if not options.alone:
            image.build()
            again = [sys.executable, "-m", "deploy.image", "--alone", "--folder", str(folder)]
            return subprocess.run(["unshare", "--net", *again], cwd=ROOT, check=False).returncode  # noqa: S603, S607
        _loopback()
        with standing(folder / "ground", settings={}) as ground:
            check(image, ground, folder / "logs")
    except Failed as error:
        _tell(str(error))
        return 1
    finally:
        if options.folder is None and not options.alone:
            shutil.rmtree(folder, ignore_errors=True)
    _tell("The image does.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
