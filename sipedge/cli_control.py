"""The commands that ask a running process: ``sipedge status``, ``stats``, ``flows``, ``ul ...``.

Strategy: each one is a request or a stream of rows over the control socket, shown as a table for
people or as a JSON object a line for programs.  What phones have sent is printed without what a
terminal would obey.  Exit status 1: the process cannot be reached, or has said no.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from sipedge.module import CommandError
from sipedge.net.control_client import ControlClient, Unreachable

Row = dict[str, Any]
FAILED: Final = 1
WIDTHS_FROM: Final = 500  # rows that decide how wide columns are
STDOUT: Final = Path("-")
GONE: Final = 410  # CommandError: that way to a UA is gone

ul = typer.Typer(
    name="ul",
    help="The bindings of the running registrar.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tls = typer.Typer(
    name="tls",
    help="The certificates of the running process.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SocketPath = Annotated[
    Path | None,
    typer.Option("--socket", envvar="SIPEDGE_SOCKET", help="Control socket of the process."),
]
ConfigPath = Annotated[
    Path | None, typer.Option("--config", help="Or: the configuration that it runs with.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, an object a line.")]
Table = Annotated[str, typer.Option("--table", help="The location table.")]
Aor = Annotated[str, typer.Argument(metavar="AOR", help="bob@example.com, or a SIP URI.")]


@contextmanager
def _client(at: Path | None, config: Path | None) -> Iterator[ControlClient]:
    """A connection to the process; what goes wrong is one sentence and exit status 1."""
    try:
        with ControlClient(_path(at, config)) as client:
            yield client
    except Unreachable as exc:
        _fail(str(exc))
    except CommandError as exc:
        _fail(_plain(exc.message))


def _path(at: Path | None, config: Path | None) -> Path:
    if at is not None:
        return at
    if config is None:
        raise typer.BadParameter(
            "which process? Say --socket PATH, or --config FILE (or set SIPEDGE_SOCKET)"
        )
    from sipedge.config import control_setting
    from sipedge.net.control import candidates
    from sipedge.net.interfaces import local_addresses

    paths = candidates(control_setting(config, local_addresses=local_addresses), config)
    if not paths:
        _fail(f"{config} switches the control socket off; set core.control_socket to a path")
    return next((path for path in paths if path.exists()), paths[0])


def _fail(why: str) -> NoReturn:
    typer.echo(f"sipedge: {why}", err=True)
    raise typer.Exit(FAILED)


def stats(at: SocketPath = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Counters and transactions of the running process."""
    with _client(at, config) as client:
        names = ("core.uptime", "core.stats", "tm.stats")
        found = {name: client.call(name) for name in names}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for values in found.values():
        for name, value in values.items():
            typer.echo(f"{name:28} {value}")


def status(at: SocketPath = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Is it ready for new calls? Exit status 1 if not: it drains, or cannot be reached."""
    with _client(at, config) as client:
        found = client.call("core.status")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(
            f"{found['status']}, {found['connections']} connections, "
            f"{found['transactions']} transactions"
        )
    if found["status"] != "ready":
        raise typer.Exit(FAILED)


def flows(
    at: SocketPath = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(help="Connections at most.", min=0)] = 1000,
) -> None:
    """Live connections of the running process."""
    columns = ("transport", "remote", "local", "direction", "idle", "connection_id")
    with _client(at, config) as client:
        result = _print(client.rows("core.flows", limit), columns, as_json)
    if not as_json:
        typer.echo(f"{result['shown']} of {result['total']} connections")


@ul.command()
def dump(
    at: SocketPath = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
    table: Table = "location",
) -> None:
    """Show all bindings."""
    with _client(at, config) as client:
        result = _print(map(_with_way, client.rows("ul.dump", table)), _COLUMNS, as_json)
    if not as_json:
        typer.echo(f"{result['rows']} bindings")


@ul.command()
def show(
    aor: Aor,
    at: SocketPath = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
    table: Table = "location",
) -> None:
    """Show the bindings of AOR in full."""
    with _client(at, config) as client:
        found = client.call("ul.lookup", table, aor)
    for number, row in enumerate(found["contacts"]):
        if as_json:
            typer.echo(json.dumps(row))
            continue
        if number:
            typer.echo()
        for name, value in row.items():
            if value not in ("", None):
                typer.echo(f"{name:14} {_plain(value)}")


@ul.command()
def rm(
    aor: Aor,
    ruid: Annotated[str, typer.Option(help="Only the binding with this id (see show).")] = "",
    at: SocketPath = None,
    config: ConfigPath = None,
    table: Table = "location",
) -> None:
    """Remove the bindings of AOR; the phone is back with its next REGISTER."""
    with _client(at, config) as client:
        removed = client.call("ul.rm", table, aor, ruid)["removed"]
    typer.echo(f"{removed} removed")


@ul.command("export")
def export_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew; - for stdout.")],
    at: SocketPath = None,
    config: ConfigPath = None,
    table: Table = "location",
) -> None:
    """Write all bindings to FILE, a JSON object a line, for `import`."""
    from sipedge.location_files import export_line

    with _client(at, config) as client:
        lines = (export_line(row) for row in client.rows("ul.dump", table))
        if file == STDOUT:
            for line in lines:
                typer.echo(line)
            return
        count = _write(file, lines)
    typer.echo(f"{count} bindings written to {file}")


@ul.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An export, or Kamailio's location table: SQLite, db_text, CSV or TSV.",
        ),
    ],
    at: SocketPath = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
    table: Table = "location",
    domain: Annotated[str, typer.Option(help="Of rows that name a user without domain.")] = "",
) -> None:
    """Put the bindings in FILE into the running registrar.

    What a phone has registered here meanwhile stays. Bindings over connections
    end with the process that had the connection: they are listed on stderr and
    counted. Exit status 1 if a row makes no sense.
    """
    from sipedge.location_files import BadFile

    tally = {"added": 0, "refreshed": 0, "kept": 0, "gone": 0, "wrong": 0}
    with _client(at, config) as client:
        try:
            _import(client, file, table, domain, tally)
        except (BadFile, OSError) as exc:
            _fail(str(exc))
        client.call("ul.flush")
    if as_json:
        typer.echo(json.dumps(tally))
    else:
        typer.echo(
            f"{tally['added']} added, {tally['refreshed']} refreshed, {tally['kept']} kept as "
            f"they are here, {tally['gone']} could not be carried over, {tally['wrong']} wrong"
        )
    if tally["wrong"]:
        raise typer.Exit(FAILED)


def _import(
    client: ControlClient, file: Path, table: str, domain: str, tally: dict[str, int]
) -> None:
    from sipedge.location_files import read_bindings

    def say(place: str, who: str, why: str) -> None:
        typer.echo(_plain(f"{file}:{place}: {who}: {why}"), err=True)

    places: list[tuple[str, str]] = []

    def good() -> Iterator[Row]:
        for entry in read_bindings(file, table, domain):
            if entry.arguments is None:
                tally["gone" if entry.gone else "wrong"] += 1
                say(entry.place, entry.who, entry.why)
            else:
                places.append((entry.place, entry.who))
                yield entry.arguments

    for _, result in client.each("ul.add", good()):
        place = places.pop(0)
        if isinstance(result, CommandError):
            tally["gone" if result.code == GONE else "wrong"] += 1
            say(*place, result.message)
        else:
            tally[result["result"]] += 1
            if result.get("note"):
                say(*place, result["note"])


def _write(file: Path, lines: Iterable[str]) -> int:
    """A whole file or none, for its owner only: it says where people are."""
    new = file.with_name(f"{file.name}.new")
    count = 0
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            for line in lines:
                out.write(line + "\n")
                count += 1
        new.replace(file)
    except OSError as exc:
        _fail(f"{file}: {exc.strerror}")
    finally:
        new.unlink(missing_ok=True)
    return count


# -- TLS


@tls.command("list")
def list_(at: SocketPath = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Show the certificates in use, and how long they last."""
    columns = ("param", "certificate", "names", "issuer", "days_left")
    with _client(at, config) as client:
        _print(client.rows("tls.certificates"), columns, as_json)


@tls.command()
def reload(at: SocketPath = None, config: ConfigPath = None) -> None:
    """Read certificates and keys again now; live connections stay as they are."""
    with _client(at, config) as client:
        count = client.call("tls.reload")["certificates"]
    typer.echo(f"{count} certificates in use")


# -- tables


_COLUMNS: Final = ("aor", "contact", "expires", "q", "reg_id", "way", "ruid")


def _with_way(row: Row) -> Row:
    """One column for how it is reached."""
    row["way"] = row["path"] or row["received"]
    return row


def _print(rows: Iterator[Row], columns: Sequence[str], as_json: bool) -> Row:
    """Print rows as they come; returns how many, or what the command says about them."""
    result = _Result(rows)
    if as_json:
        for row in result:
            typer.echo(json.dumps({name: row[name] for name in row if name != "way"}))
        return result.value
    first = list(islice(result, WIDTHS_FROM))
    shown = [[_cell(row, name) for name in columns] for row in first]
    widths = [max(map(len, cells)) for cells in zip(columns, *shown, strict=True)]
    heads = [name.replace("_", "-").upper() for name in columns]
    rest = ([_cell(row, name) for name in columns] for row in result)
    for cells in chain([heads], shown, rest):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo(line.rstrip())
    return result.value


class _Result:
    """Iterates over rows, and knows afterwards what came after the last."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.value: Row = {}
        self._count = 0

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        try:
            row = next(self._rows)
        except StopIteration as end:
            if not self.value:
                self.value = end.value or {"rows": self._count}
            raise
        self._count += 1
        return row


def _cell(row: Row, name: str) -> str:
    value = row[name]
    return "-" if value in ("", None) else _plain(value)


def _plain(value: object) -> str:
    """Text from the network as a terminal may see it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def add_to(app: typer.Typer) -> None:
    """Make these commands part of the program."""
    for command in (status, stats, flows):
        app.command()(command)
    app.add_typer(ul)
    app.add_typer(tls)
