"""The command ``sipedge``: init, check, run, keygen, passwd, demo; ``cli_control`` has the rest.

Strategy: each command is a few lines; what it needs is imported when it runs, so that ``keygen``
and ``--help`` are quick.  A configuration that cannot be run is one line on stderr, as compilers
write it (``file:line: what``), and exit status 2.  The rim of the program: no stop of a datagram.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
import time
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Final

import typer

from sipedge import cli_control
from sipedge.errors import ConfigError
from sipedge.keyfile import new_key

BAD_CONFIGURATION: Final = 2  # exit status, as for wrong arguments

app = typer.Typer(
    name="sipedge",
    help="A SIP edge proxy and registrar with SIP Outbound (RFC 5626), on by default.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, in Python.")]


class Kind(enum.StrEnum):
    """The configurations that ``init`` can write: the files of ``examples/``."""

    EDGE = "edge"
    REGISTRAR = "registrar"
    BOTH = "edge_and_registrar"


class Level(enum.StrEnum):
    """Logging levels, as words for the command line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sipedge {metadata.version('sipedge')}")
        raise typer.Exit


@app.callback()
def sipedge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A SIP edge proxy and registrar with SIP Outbound (RFC 5626), on by default."""


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
    kind: Annotated[Kind, typer.Option(help="Which configuration to start from.")] = Kind.EDGE,
    tls: Annotated[
        bool, typer.Option("--tls", help="With TLS and a self-signed certificate.")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="With --tls: a name for the certificate, edge.example.com; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write a commented configuration and a fresh key file into DIR; never overwrite one."""
    text = resources.files("sipedge").joinpath("templates", f"{kind}.py").read_text("utf-8")
    config = directory / f"{kind}.py"
    note = "# current key first; older keys below it are still accepted"
    files: dict[Path, tuple[bytes, int]] = {
        directory / "flow_token.key": (f"{note}\n{new_key()}\n".encode(), 0o600)
    }
    if tls:
        from sipedge.self_signed import CERTIFICATE, PRIVATE_KEY, self_signed, with_tls

        text, address = with_tls(text, name or [])
        certificate, private_key = self_signed([*(name or []), address], time.time())
        files[directory / CERTIFICATE] = certificate, 0o644
        files[directory / PRIVATE_KEY] = private_key, 0o600
    elif name:
        raise typer.BadParameter("--name is for the certificate of --tls")
    files = {config: (text.encode(), 0o644), **files}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in files:
            if path.exists():
                raise FileExistsError(f"{path} is there already; nothing was written")
        for path, (data, mode) in files.items():
            _write_new(path, data, mode)
    except OSError as exc:
        typer.echo(f"sipedge init: {exc}", err=True)
        raise typer.Exit(1) from exc
    typer.echo(f"wrote {', '.join(map(str, files))}")
    typer.echo(f"next: edit {config}, then: sipedge check {config} && sipedge run {config}")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that must not be there; private from its first moment if ``mode`` says so."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


@app.command()
def check(config: ConfigFile) -> None:
    """Load FILE as `run` would, up to and including mod_init, and report what came of it.

    Prints listeners, modules in load order with who bound to whom, and routes.
    No socket is opened.
    """
    from sipedge.config import load_config
    from sipedge.net.interfaces import local_addresses

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    edge = load_config(config, local_addresses=local_addresses)
    if edge.core.tls is not None:
        from sipedge.net.tls import TlsContexts

        TlsContexts(edge.core.tls)  # OpenSSL has a say, and the clock
    report = edge.report()
    edge.destroy()
    typer.echo(report)
    typer.echo("the configuration is good")


@app.command()
def run(
    config: ConfigFile,
    log_level: Annotated[Level, typer.Option(help="What is logged to stderr.")] = Level.INFO,
) -> None:
    """Serve with the configuration FILE until SIGTERM (drains) or SIGINT (at once)."""
    from sipedge.config import load_config
    from sipedge.net.interfaces import local_addresses
    from sipedge.net.process import run as serve

    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s %(message)s"
    )
    edge = load_config(config, local_addresses=local_addresses)

    def ready() -> None:
        names = ", ".join(listener.name for listener in edge.config.listeners)
        typer.echo(f"sipedge is listening on {names}", err=True)

    raise typer.Exit(serve(edge, ready=ready))


@app.command()
def keygen() -> None:
    """Print a fresh key for a key file (40 hexadecimal digits).

    `(umask 077; sipedge keygen > flow_token.key)` makes a key file. To change
    the key, put a new one on top of the file: tokens of the older ones are
    still accepted.
    """
    typer.echo(new_key())


@app.command()
def passwd(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Made if it is not there; - prints.")
    ],
    user: Annotated[str, typer.Argument(metavar="USER", help="As the phone sends it.")],
    realm: Annotated[str, typer.Argument(metavar="REALM", help="Of the challenge: the domain.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the user.")] = False,
) -> None:
    """Set the password of a user in a password file of the module auth.

    The password is asked for, or is the first line of stdin if that is no
    terminal. Hashes are written (MD5, SHA-256, SHA-512-256), readable by the
    owner of FILE only. A running edge reads the file again by itself.
    """
    from sipedge.modules.auth.passwords import password_line, write_password

    try:
        line = None if delete else password_line(user, realm, _password())
        if str(file) == "-":
            typer.echo(line or "")
            return
        found = write_password(file, user, realm, line)
    except (OSError, ValueError) as exc:
        typer.echo(f"sipedge passwd: {exc}", err=True)
        raise typer.Exit(1) from exc
    if delete and not found:
        typer.echo(f"sipedge passwd: {file} has no user {user} of realm {realm}", err=True)
        raise typer.Exit(1)


def _password() -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return answer
    return sys.stdin.readline().rstrip("\r\n")


@app.command()
def demo() -> None:
    """Two phones register through an edge on loopback and call each other, before your eyes.

    One speaks UDP, the other TCP; each hangs up once. Prints every message;
    exit 0 if all worked.
    """
    from sipedge.demo import run as run_demo

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    raise typer.Exit(run_demo())


cli_control.add_to(app)


def main(argv: list[str] | None = None) -> None:
    """The entry point; ``argv`` without the name of the program.  Ends with ``SystemExit``."""
    try:
        app(args=argv, prog_name="sipedge")
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(BAD_CONFIGURATION) from exc
