"""The programs that some tests talk to: who needs them, and what happens where they are missing.

Strategy: a test asks ``need("kamailio")`` and gets the path of the executable.  On somebody's
laptop a missing peer skips the test, and the summary at the end of the run says so in one line a
peer; with ``CI=true`` it fails, so that a run which proves less than it claims is never green.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

#: name -> (how to install it, arguments that make it print its version)
PEERS: Final = {
    "sipp": ("apt-get install sip-tester", ("-v",)),
    "kamailio": ("apt-get install kamailio", ("-v",)),
    "baresip": ("apt-get install baresip-core", ("-h",)),
    "nsd": ("apt-get install nsd", ("-v",)),
    "gcc": ("apt-get install gcc libc6-dev libssl-dev", ("--version",)),
    "openssl": ("apt-get install openssl", ("version",)),
    "nft": ("apt-get install nftables", ("-v",)),
    "ip": ("apt-get install iproute2, and run as root", ("-V",)),
    "redis-server": ("apt-get install redis-server", ("--version",)),
    "postgres": ("apt-get install postgresql", ("--version",)),
    "chromium": ("apt-get install chromium-headless-shell", ("--version",)),
    "linphone": ("apt-get install linphone-cli", ("--help",)),
    "jssip": ("tools/setup peers, which takes npm", ()),
    "compiled": ("apt-get install gcc libc6-dev python3-dev, and make compiled", ()),
    "pjsip": ("pip install pjsua2-python, on Linux with Python 3.11 or 3.12", ()),
}
#: other names of the same program
_ALSO: Final = {
    "linphone": ("linphone-daemon",),
    "chromium": ("chromium-headless-shell", "chromium-browser", "google-chrome"),
}
#: what is no program but a file that tools/setup makes, or that pip brings
_MADE: Final = {
    "jssip": Path(__file__).parents[1] / "build/browser/jssip.js",
    "compiled": Path(__file__).parents[1] / ".venv-compiled/.compiled",
    "pjsip": Path(getattr(find_spec("pjsua2"), "origin", None) or "pjsua2"),
}

#: peer -> why it cannot be used, and the tests that wanted it (for the summary)
missing: dict[str, tuple[str, list[str]]] = {}
#: peer -> path and version of what was used (for the summary)
used: dict[str, str] = {}


def need(name: str) -> str:
    """The path of a peer's executable; ``PEERS`` has the names.

    ``ip`` stands for network namespaces: it also takes root and a kernel that lets us add one.
    Where the peer cannot be used, the test is skipped, or fails if ``CI=true`` is set.
    """
    path, why = _look(name)
    if path is not None:
        used.setdefault(name, path if name in _MADE else f"{path} ({_version(name, path)})")
        return path
    tests = missing.setdefault(name, (why, []))[1]
    tests.append(os.environ.get("PYTEST_CURRENT_TEST", "?").partition(" ")[0])
    text = f"needs {name}: {why} ({PEERS[name][0]})"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def have(name: str) -> bool:
    """Whether ``need(name)`` would return."""
    return _look(name)[0] is not None


@functools.cache
def _look(name: str) -> tuple[str | None, str]:
    if name not in PEERS:
        raise ValueError(f"unknown peer {name!r}; known are {', '.join(PEERS)}")
    if name in _MADE:
        return (str(_MADE[name]), "") if _MADE[name].is_file() else (None, "not installed")
    names = (name, *_ALSO.get(name, ()))
    path = next(filter(None, map(shutil.which, names)), None)
    path = path or shutil.which(name, path=_kept_from_path())
    if path is None:
        return None, "not installed"
    if name == "ip":
        why = _no_namespaces(path)
        if why:
            return None, why
    return path, ""


def _kept_from_path() -> str:
    """Where Debian has kamailio and ip, and the programs of each version of PostgreSQL."""
    postgres = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin", *postgres])


def _no_namespaces(ip: str) -> str:
    """Why no network namespace can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    probe = f"sipedge-probe-{os.getpid()}"
    added = _run(ip, "netns", "add", probe)
    if added.returncode != 0:
        return "`ip netns add` failed: " + added.stdout.strip().replace("\n", " ")
    # a namespace that cannot be entered, or has no veth, is of no use to anybody
    worked = _run(ip, "-n", probe, "link", "set", "lo", "up")
    _run(ip, "netns", "delete", probe)
    if worked.returncode != 0:
        return "a network namespace could be added but not used: " + worked.stdout.strip()
    return ""


def _version(name: str, path: str) -> str:
    """The first line of text of the version output."""
    lines = _run(path, *PEERS[name][1]).stdout.splitlines()
    return next((line.strip(" \t.") for line in lines if line.strip()), "version unknown")[:70]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
