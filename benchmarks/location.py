"""Location: what a registrar costs as its table grows to a million bindings, beside Kamailio.

Strategy: phones behind one edge, each with a Path of its own, register with a registrar that is
empty.  At 1,000, 10,000, 100,000 and 1,000,000 bindings some of them are refreshed and some are
looked up (an OPTIONS that the registrar answers itself after ``lookup``).  The generator keeps 32
requests open over one socket; the longest time that any of them took is the worst pause.  Memory is
what the resident set has grown by; for Kamailio, whose memory is taken beforehand, what its shared
memory says.  Then each is started on a file that has all the bindings.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from benchmarks.rig import Device

BINDINGS: Final = 1_000_000
SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
#: refreshes, and look-ups, at each size
EACH: Final = 5_000
OUTSTANDING: Final = 32
PATIENCE_S: Final = 10.0
PORT: Final = 5060
_WT_TIMER_MS: Final = 500
_START_PATIENCE_S: Final = 180.0
_EXPIRES: Final = 7200
_TABLES: Final = Path("/usr/share/kamailio/db_sqlite")
_RPC: Final = "location.ctl"
HOW: Final = (
    "REGISTER by way of an edge (Path), outbound, GRUUs wanted; one core for the registrar. "
    "Kamailio: usrloc\nwith hash_size 17 instead of 10, db_mode 0; on a file db_mode 2, db_sqlite."
)

_REGISTER: Final = (
    b"REGISTER sip:example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.1:5090;rport;branch=z9hG4bK%08x\r\n"
    b"Via: SIP/2.0/UDP 10.%d.%d.%d:5060;rport=5060;received=198.51.100.7;branch=z9hG4bKp%08x\r\n"
    b"Max-Forwards: 9\r\n"
    b'From: "User %d" <sip:u%07d@example.com>;tag=%08x\r\n'
    b'To: "User %d" <sip:u%07d@example.com>\r\n'
    b"Call-ID: %08x-9d3a11@ua%07d.example.com\r\n"
    b"CSeq: %d REGISTER\r\n"
    b"Contact: <sip:u%07d@10.%d.%d.%d:5060;ob>"
    b';+sip.instance="<urn:uuid:00000000-0000-1000-8000-%012x>";reg-id=1;expires=%d\r\n'
    b"Path: <sip:%024x@192.0.2.1:5060;lr;ob>\r\n"
    b"Supported: path, outbound, gruu\r\n"
    b"Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REFER, MESSAGE\r\n"
    b"User-Agent: ExamplePhone/4.2.1\r\nContent-Length: 0\r\n\r\n"
)
_OPTIONS: Final = (
    b"OPTIONS sip:u%07d@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.1:5090;rport;branch=z9hG4bK%08x\r\n"
    b"Max-Forwards: 9\r\nFrom: <sip:caller@example.com>;tag=%08x\r\n"
    b"To: <sip:u%07d@example.com>\r\nCall-ID: %08x-0\r\nCSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)
Figures = dict[str, Any]


def register(number: int, user: int, cseq: int) -> bytes:
    """The REGISTER with transaction ``number`` of a phone."""
    at = (user >> 16 & 255, user >> 8 & 255, user & 255)
    return _REGISTER % (
        number, *at, number, user, user, number, user, user, user, user, cseq, user, *at, user,
        _EXPIRES, user,
    )  # fmt: skip


def options(number: int, user: int) -> bytes:
    """The OPTIONS for a phone."""
    return _OPTIONS % (user, number, number, user, number)


class Generator:
    """One socket that keeps some requests open."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._number = int(time.time()) << 4 & 0x3FFFFFFF
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", device.port))
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def run(self, count: int, make: Callable[[int, int], bytes]) -> Figures:
        """Send ``make(transaction, index)`` for each index; all must be answered 200."""
        first = self._number = self._number + 1
        self._number += count
        sent_at = array("d", bytes(8 * count))
        took = array("f", bytes(4 * count))
        clock, send, receive = time.perf_counter, self._socket.send, self._socket.recv
        sent = done = 0
        cpu = cpu_seconds(self._device)
        begin = clock()
        while done < count:
            while sent < count and sent - done < OUTSTANDING:
                sent_at[sent] = clock()
                send(make(first + sent, sent))
                sent += 1
            if not self._poll.poll(PATIENCE_S * 1000):
                raise SystemExit(f"benchmarks: {self._device.name} has stopped to answer")
            while done < sent:
                try:
                    reply = receive(65536)
                except BlockingIOError:
                    break
                if not reply.startswith(b"SIP/2.0 200"):
                    raise SystemExit(f"benchmarks: {self._device.name}: {reply[:600]!r}")
                at = reply.index(b"z9hG4bK") + 7
                index = int(reply[at : at + 8], 16) - first
                took[index] = clock() - sent_at[index]
                done += 1
        seconds = clock() - begin
        order = sorted(took)
        return {
            "rate": round(count / seconds),
            "cpu_us": round((cpu_seconds(self._device) - cpu) / count * 1e6, 1),
            "p50_us": round(order[count // 2] * 1e6),
            "p99_us": round(order[count * 99 // 100] * 1e6),
            "max_us": round(order[-1] * 1e6),
        }


def cpu_seconds(device: Device) -> float:
    """User and system time of all its processes."""
    ticks = 0
    for pid in device.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(bindings: int = BINDINGS) -> dict[str, Any]:
    """Everything, for up to ``bindings``; returns ``{device: {size: figures}}`` and start-up."""
    os.sched_setaffinity(0, {rig.GENERATOR_CPU})
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if rig.kamailio_version() is not None:
            rpc = directory / _RPC
            define = ["-A", f'CTL="unixs:{rpc}"']
            with rig.kamailio(PORT, config="kamailio_location.cfg", options=define) as device:
                found["Kamailio"] = _grow(device, bindings, lambda: _shared_memory(rpc))
        with rig.sipedge(PORT, "location_registrar.py", wt_timer_ms=_WT_TIMER_MS) as device:
            found["sipedge"] = _grow(device, bindings, lambda: _resident(device))
        found["start-up"] = _start_ups(directory, bindings)
    return found


def _grow(device: Device, bindings: int, octets: Callable[[], int]) -> dict[str, Figures]:
    generator = Generator(device)
    found: dict[str, Figures] = {}
    generator.run(EACH, lambda number, index: register(number, index % 100, 1 + index))  # warm up
    time.sleep(_WT_TIMER_MS / 1000 + 2)
    before, have = octets(), 0
    for size in [size for size in SIZES if size < bindings] + [bindings]:
        first = have + 100

        def new(number: int, index: int, first: int = first) -> bytes:
            return register(number, first + index, 1)

        def again(number: int, index: int, size: int = size) -> bytes:
            return register(number, 100 + index * 7919 % size, 2 + number)

        def look(number: int, index: int, size: int = size) -> bytes:
            return options(number, 100 + index * 7919 % size)

        one: Figures = {"new": generator.run(size - have, new)}
        one["refresh"] = generator.run(EACH, again)
        one["lookup"] = generator.run(EACH, look)
        have = size
        time.sleep(_WT_TIMER_MS / 1000 + 2)
        one["octets"] = round((octets() - before) / size)
        found[str(size)] = one
    generator.close()
    return found


def _resident(device: Device) -> int:
    pages = int(Path(f"/proc/{device.pids[0]}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _shared_memory(rpc: Path) -> int:
    program = shutil.which("kamcmd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        return 0
    command = [program, "-s", f"unixs:{rpc}", "core.shmmem"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = dict(row.split(": ", 1) for row in map(str.strip, text.splitlines()) if ": " in row)
    return int(fields["real_used"])


# -- start-up


def _start_ups(directory: Path, bindings: int) -> dict[str, float]:
    """Seconds from the start of a process until it knows the last binding of its file."""
    found: dict[str, float] = {}
    file = directory / "location.sqlite"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.location", str(file), str(bindings)],
        check=True, cwd=rig.HERE.parent,
    )  # fmt: skip
    command = [sys.executable, "-m", "sipedge", "run", "--log-level", "error"]
    command.append(str(rig.HERE / "location_registrar.py"))
    found["sipedge, SQLite"] = _started(command, bindings, BENCH_DB_URL=f"sqlite:///{file}")
    if rig.kamailio_version() is not None and (_TABLES / "usrloc-create.sql").exists():
        file = directory / "kamailio.sqlite"
        _write_kamailio(file, bindings)
        options = ["-A", f'CTL="unixs:{directory / _RPC}"', "-A", f'DB_URL="sqlite:///{file}"']
        # it reads the whole table into private memory first
        command = [*rig.kamailio_command(PORT, "kamailio_location.cfg", options), "-M", "4000"]
        found["Kamailio, SQLite"] = _started(command, bindings)
    return found


def _started(command: list[str], bindings: int, **environment: str) -> float:
    with tempfile.TemporaryFile() as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", str(rig.DEVICE_CPU), *command], stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, env={**os.environ, "BENCH_PORT": str(PORT), **environment},
        )  # fmt: skip
        try:
            if _known(process, 99 + bindings):
                return round(time.monotonic() - begin, 1)
            log.seek(0)
            said = log.read(4000).decode(errors="replace")
            raise SystemExit(f"benchmarks: {command[0]} did not start:\n{said}")
        finally:
            process.terminate()
            process.wait(60)


def _known(process: subprocess.Popen[bytes], user: int) -> bool:
    """Wait until it finds that user; False if it does not."""
    until, number = time.monotonic() + _START_PATIENCE_S, 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", PORT))
        sock.settimeout(0.05)
        while time.monotonic() < until and process.poll() is None:
            number += 1
            try:
                sock.send(options(number, user))
                if sock.recv(65536).startswith(b"SIP/2.0 200"):
                    return True
            except OSError:  # nobody has the port yet
                time.sleep(0.02)
    return False


def write(file: Path, bindings: int) -> None:
    """A file as our registrar leaves it; runs in a process of its own."""
    from registrar_plugin.bindings import MICRO, Binding
    from registrar_plugin.store.sqlite_file import SqliteFile

    database = SqliteFile(file)
    database.inspect()
    database.open()
    now_us = int(time.time() * MICRO)
    rows: dict[tuple[str, bytes], tuple[Binding, ...]] = {}
    for user in range(100, 100 + bindings):
        message = register(user, user, 1).split(b"\r\n")
        contact, call_id = message[8][9:].rpartition(b";expires=")[0], message[6][9:]
        rows["location", b"u%07d@example.com" % user] = (
            Binding(
                contact, 1, -1, message[9][6:], None, call_id, 1, now_us + user, _EXPIRES, None
            ),
        )
        if len(rows) == 50_000 or user == 99 + bindings:
            database.write(rows, 0)
            rows.clear()
    database.close()


def _write_kamailio(file: Path, bindings: int) -> None:
    """The same for Kamailio, in its tables."""
    database = sqlite3.connect(file)
    for name in ("standard", "usrloc"):
        database.executescript((_TABLES / f"{name}-create.sql").read_text())
    today = time.time() / 86400 + 2440587.5  # as Julian days, for that is how it writes them
    moments = (today + _EXPIRES / 86400, today)
    columns = (
        "ruid, username, domain, contact, path, expires, q, callid, cseq, last_modified, flags, "
        "cflags, user_agent, socket, instance, reg_id, server_id, connection_id, keepalive, "
        "partition"
    )

    def row(user: int) -> tuple[Any, ...]:
        at = f"{user >> 16 & 255}.{user >> 8 & 255}.{user & 255}"
        return (
            f"uloc-{secrets.token_hex(8)}", f"u{user:07d}", "example.com",
            f"sip:u{user:07d}@10.{at}:5060;ob", f"<sip:{user:024x}@192.0.2.1:5060;lr;ob>",
            moments[0], -1.0, f"{user:08x}-9d3a11@ua{user:07d}.example.com", 1, moments[1], 0, 0,
            "ExamplePhone/4.2.1", f"udp:127.0.0.1:{PORT}",
            f"<urn:uuid:00000000-0000-1000-8000-{user:012x}>", 1, 0, -1, 0, 0,
        )  # fmt: skip

    insert = f"INSERT INTO location ({columns}) VALUES ({', '.join('?' * 20)})"
    database.executemany(insert, map(row, range(100, 100 + bindings)))
    database.commit()
    database.close()


def table(found: dict[str, Any], baseline: dict[str, Any]) -> str:
    """For people; ``baseline`` is an earlier result of ``measure``."""
    rows = [
        f"{'bindings':>10}  {'':10}{'saves/s':>9}{'refreshes/s':>13}{'CPU us':>8}{'p99 us':>8}"
        f"{'lookups/s':>11}{'CPU us':>8}{'p99 us':>8}{'worst pause':>13}{'octets each':>13}"
        "  to baseline"
    ]
    sizes = dict.fromkeys(size for name in ("Kamailio", "sipedge") for size in found.get(name, ()))
    for size in sizes:
        for name in ("Kamailio", "sipedge"):
            one = found.get(name, {}).get(size)
            if one is None:
                continue
            new, again, look = one["new"], one["refresh"], one["lookup"]
            worst = max(run["max_us"] for run in (new, again, look)) / 1000
            old = baseline.get(name, {}).get(size)
            delta = f"{100 * (again['rate'] / old['refresh']['rate'] - 1):+11.0f} %" if old else ""
            rows.append(
                f"{int(size):10,}  {name:10}{new['rate']:9,}{again['rate']:13,}"
                f"{again['cpu_us']:8.1f}{again['p99_us']:8}{look['rate']:11,}{look['cpu_us']:8.1f}"
                f"{look['p99_us']:8}{worst:10.1f} ms{one['octets']:13,}{delta}"
            )
    for name, seconds in found["start-up"].items():
        rows.append(f"start with all of them on a file: {name:18}{seconds:6.1f} s")
    return "\n".join(rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
