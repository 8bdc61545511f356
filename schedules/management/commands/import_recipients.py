"""``manage.py import_recipients``: people from a CSV or NDJSON file."""

import errno
import json
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schedules import clock
from schedules.imports.delimited import DELIMITERS
from schedules.imports.lines import Unreadable
from schedules.imports.recipients import Format, Report, Stage, import_recipients
from schedules.imports.rows import BadLine
from schedules.management.files import format_of, opened

_DELIMITERS = {name: delimiter for delimiter, name in DELIMITERS.items()}
_SHOWN_BAD = 20
_SHOWN_VALUES = 10
_INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


class Command(BaseCommand):
    help = (
        "Create and update recipients from a CSV or NDJSON file, by external_id: all of it or, when a line is bad, "
        "nothing. docs/importing.md describes the files."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the file; - reads the standard input")
        parser.add_argument("--format", choices=[str(each) for each in Format], help="instead of the file's ending")
        parser.add_argument("--dry-run", action="store_true", help="do it all and keep nothing")
        parser.add_argument("--skip-bad", action="store_true", help="leave bad lines out and import the others")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write every bad line to FILE, as NDJSON")
        parser.add_argument(
            "--encoding", default="utf-8", help="of the file, such as cp1252 or utf-16 (default: utf-8)"
        )
        parser.add_argument(
            "--delimiter", choices=list(_DELIMITERS), help="of a CSV file (default: found by its header)"
        )
        parser.add_argument(
            "--infer-types",
            action="store_true",
            help="keep numbers, true and false of a CSV file as such, not as texts",
        )

        parser.add_argument(
            "--bring-back", action="store_true", help="import people too who were erased before, and forget that"
        )

    def handle(self, **options: Any) -> None:
        name: str = options["file"]
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(opened(name))
                report = import_recipients(
                    stream=stream,
                    format=format_of(name, options["format"]),
                    by="system:import_recipients",
                    now=clock.now(),
                    dry_run=options["dry_run"],
                    skip_bad=options["skip_bad"],
                    encoding=options["encoding"],
                    delimiter=_DELIMITERS.get(options["delimiter"], ""),
                    infer_types=options["infer_types"],
                    bring_back=options["bring_back"],
                    on_bad=stack.enter_context(_report_file(options["report"], stream)),
                    progress=stack.enter_context(_progress_bar(stream, name)),
                )
        except Unreadable as error:
            raise CommandError(f"{name}: the file {error}. Nothing was imported.") from None
        except OSError as error:
            raise CommandError(f"{error.filename or name}: {error.strerror}. Nothing was imported.") from None
        except KeyboardInterrupt:
            raise CommandError("Stopped. Nothing was imported.", returncode=_INTERRUPTED) from None
        self._tell(report, options)
        if report.bad_lines and not options["skip_bad"]:
            raise CommandError(
                "Nothing was imported because of the bad lines. Correct them, or leave them out with --skip-bad."
            )

    def _tell(self, report: Report, options: Mapping[str, Any]) -> None:
        for line in _report_lines(report, dry_run=options["dry_run"]):
            self.stdout.write(line)
        if options["report"]:
            kept = options["report"] if report.bad_lines else f"none, so {options['report']} was not written"
            self.stdout.write(f"All bad lines: {kept}")


@contextmanager
def _report_file(path: Path | None, stream: BinaryIO) -> Iterator[Callable[[BadLine], None] | None]:
    """Made with the first bad line, never over the very file that is read."""
    if path is None:
        yield None
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if _is_same_file(path, stream):
        raise CommandError(f"--report {path} is the file to import: name another. Nothing was imported.")
    with ExitStack() as stack:
        files: list[TextIO] = []

        def write(bad: BadLine) -> None:
            if not files:
                files.append(stack.enter_context(path.open("w", encoding="utf-8")))
            print(json.dumps(bad._asdict(), ensure_ascii=False), file=files[0])

        yield write


def _is_same_file(path: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:  # there is no such file yet, or the stream is none
        return False


@contextmanager
def _progress_bar(stream: BinaryIO, name: str) -> Iterator[Callable[[Stage, int], None]]:
    """On a terminal's standard error; nothing elsewhere."""
    total = Path(name).stat().st_size if name != "-" and Path(name).is_file() else None
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(str(Stage.READ), total=total)

        def show(stage: Stage, people: int) -> None:
            position = stream.tell() if total and stage is Stage.READ else None
            bar.update(task, description=f"{stage} {people:,} people", total=total if position else None)
            bar.update(task, completed=position)

        yield show


def _report_lines(report: Report, *, dry_run: bool) -> Iterator[str]:
    written = report.written
    if report.bad_lines:
        yield f"Bad lines: {report.bad_lines:,}"
        for bad in report.bad[:_SHOWN_BAD]:
            yield f"  line {bad.line}: {bad.field or 'the line'} {bad.reason}"
        if report.bad_lines > _SHOWN_BAD:
            yield f"  and {report.bad_lines - _SHOWN_BAD:,} more; --report FILE writes them all"
    yield from _warnings("time zones", report.unknown_zones, "the schedule's zone is used instead")
    yield from _warnings("locales", report.unknown_locales, "the template's default is used instead")
    for column, attribute in report.renamed.items():
        yield f"Column “{column}” became the attribute {attribute}."
    if report.number_like:
        yield (
            f"Kept as texts, though they look like numbers: {', '.join(report.number_like)}. Only numbers are greater "
            f"or less than others: name the column {report.number_like[0]}:number, or use --infer-types."
        )
    if not report.is_kept and not (dry_run and any(written)):
        yield f"People in the file: {report.lines:,}, of which bad: {report.bad_lines:,}."
        return
    yield (
        f"{'Would be imported' if dry_run else 'Imported'}: {written.created:,} created, {written.updated:,} updated, "
        f"{written.unchanged:,} unchanged; left out: {report.bad_lines:,}."
    )
    if written.left_out:
        yield (
            f"{written.left_out:,} of the lines {'is' if written.left_out == 1 else 'are'} left out, since the person "
            "was erased before; --bring-back imports them all the same."
        )
    if written.devices_added or written.devices_moved or written.devices_renewed:
        yield (
            f"Devices: {written.devices_added:,} added, {written.devices_moved:,} moved from somebody else, "
            f"{written.devices_renewed:,} renewed."
        )


def _warnings(what: str, counts: Mapping[str, int], consequence: str) -> Iterator[str]:
    if not counts:
        return
    shown = ", ".join(f"{value!r} ({count:,})" for value, count in list(counts.items())[:_SHOWN_VALUES])
    more = f" and {len(counts) - _SHOWN_VALUES:,} more" if len(counts) > _SHOWN_VALUES else ""
    yield f"Unknown {what}, kept as they are: {shown}{more}; {consequence}."
