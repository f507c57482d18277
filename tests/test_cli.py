"""The command, as a shell runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sipedge.cli import main

ROOT = Path(__file__).parent.parent
KEY_LINE = re.compile(r"[0-9a-f]{40}\n")
SMALL = """
listen("udp:127.0.0.1:0")
loadmodule("sl")
loadmodule("siputils")
def request_route(ksr, msg):
    ksr.siputils.options_reply(msg)
"""


def sipedge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sipedge", *map(str, arguments)]
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=120, check=False
    )


def quick(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """The same in this process: status, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


@pytest.mark.parametrize("command", ["", "init", "check", "run", "keygen", "passwd", "demo"])
def test_help_everywhere(command: str) -> None:
    for option in ("--help", "-h"):
        result = sipedge(*command.split(), option)
        assert result.returncode == 0
        assert "Usage: sipedge" in result.stdout
        assert command in result.stdout


def test_the_installed_command_is_the_module() -> None:
    name = Path(sys.executable).with_name("sipedge")
    result = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("sipedge 0.")


def test_a_wrong_command_is_a_usage_error() -> None:
    result = sipedge("nonsense")
    assert result.returncode == 2
    assert "nonsense" in result.stderr


def test_keygen_prints_a_fresh_key_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    status, first, _ = quick(capsys, "keygen")
    assert status == 0
    assert KEY_LINE.fullmatch(first)
    assert quick(capsys, "keygen")[1] != first


# init


@pytest.mark.parametrize("kind", ["edge", "registrar", "edge_and_registrar"])
def test_what_init_writes_can_be_checked(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "new" / "place"
    status, out, _ = quick(capsys, "init", directory, "--kind", kind)
    assert status == 0
    config, keys = directory / f"{kind}.py", directory / "flow_token.key"
    assert str(config) in out
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert config.read_text() == (ROOT / "examples" / f"{kind}.py").read_text()
    status, out, err = quick(capsys, "check", config)
    assert (status, err) == (0, "")
    assert "the configuration is good" in out


@pytest.mark.parametrize("there", ["edge.py", "flow_token.key"])
def test_init_never_overwrites(
    there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / there).write_text("mine")
    status, _, err = quick(capsys, "init", tmp_path)
    assert status == 1
    assert there in err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_init_into_a_place_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status, _, err = quick(capsys, "init", tmp_path / "file" / "dir")
    assert status == 1
    assert "file" in err


# check


def test_check_reports_order_bindings_and_routes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(capsys, "init", tmp_path, "--kind", "edge_and_registrar")
    status, out, _ = quick(capsys, "check", tmp_path / "edge_and_registrar.py")
    assert status == 0
    assert "udp:127.0.0.1:5060" in out
    assert out.index("outbound") < out.index("rr, bound to bind_ob of outbound")
    assert "request_route, line" in out


def test_check_warns_about_the_order_and_names_the_line_to_move(tmp_path: Path) -> None:
    keys = tmp_path / "flow_token.key"
    keys.touch(0o600)
    keys.write_text("00" * 20)
    config = tmp_path / "edge.py"
    config.write_text(
        SMALL + 'loadmodule("rr")\nloadmodule("outbound")\n'
        'modparam("outbound", "flow_token_key", keyfile("flow_token.key"))\n'
    )
    result = sipedge("check", config)
    assert result.returncode == 0
    assert "bound to" not in result.stdout
    assert result.stderr.count("\n") == 1
    assert f"WARNING {config}:7: rr runs without outbound" in result.stderr
    assert "move loadmodule('outbound') (line 8) above loadmodule('rr') (line 7)" in result.stderr


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("listen('udp:127.0.0.1')\nloadmodul('rr')\n", 2, "NameError"),
        ("loadmodule('outbund')\n", 1, "did you mean 'outbound'"),
        ("modparam('rr', 'add_username', 1)\n", 1, "loadmodule('rr') above"),
        # mod_init is run, which finds what a mere look at the file would not
        (SMALL + "loadmodule('outbound')\n", 7, "flow_token_key"),
        (
            SMALL + "loadmodule('outbound')\nmodparam('outbound', 'flow_token_key', b'short')\n",
            8,
            "20 octets",
        ),
    ],
)
def test_a_bad_configuration_is_one_line_and_status_2(
    command: str,
    text: str,
    line: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "edge.py"
    config.write_text(text)
    status, out, err = quick(capsys, command, config)
    assert status == 2
    assert out == ""
    assert err.startswith(f"{config}:{line}: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_missing_configuration_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = quick(capsys, "check", tmp_path / "gone.py")
    assert (status, err.count("\n")) == (2, 1)
    assert "gone.py: cannot read" in err


# run


def test_run_serves_until_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "edge.py"
    config.write_text(SMALL)
    command = [sys.executable, "-m", "sipedge", "run", str(config)]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                found = re.search(r"listening on udp:127\.0\.0\.1:(\d+)", line)
                if found:
                    break
            else:
                pytest.fail("it ended")
            phone.settimeout(30)
            phone.connect(("127.0.0.1", int(found[1])))
            phone.send(
                b"OPTIONS sip:127.0.0.1 SIP/2.0\r\n"
                b"Via: SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bKcli\r\n"
                b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
                b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            )
            assert phone.recv(4096).startswith(b"SIP/2.0 200 OK\r\n")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()


def test_run_on_an_address_that_is_taken_names_the_listen_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = tmp_path / "edge.py"
        port = taken.getsockname()[1]
        config.write_text(SMALL.replace("udp:127.0.0.1:0", f"tcp:127.0.0.1:{port}"))
        result = sipedge("run", config)
    assert result.returncode == 2
    assert f"{config}:2: " in result.stderr


def test_demo_works() -> None:
    result = sipedge("demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert result.stdout.count("INVITE sip:") == 6  # three calls, each over two hops
    assert result.stdout.count("BYE sip:") == 6
    assert "it works" in result.stdout


# a module of somebody else's


def test_a_third_party_module_is_installed_with_pip_and_loads_like_ours(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "examples" / "third_party", source)
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(installed)]
    subprocess.run([*pip, *offline, str(source)], check=True, timeout=300)
    program = """
from sipedge.config import load_source
from sipedge.sip.message import parse
edge = load_source('''
listen("udp:127.0.0.1:5060")
loadmodule("hello")
modparam("hello", "greeting", "good morning")
def request_route(ksr, msg):
    print(int(ksr.hello.say_hello(msg)), msg.first(b"x-hello").decode())
''')
flow = edge.core.flows.udp(edge.config.listeners[0], ("127.0.0.2", 5060))
edge.core.receive(
    b"OPTIONS sip:127.0.0.1 SIP/2.0\\r\\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK1\\r\\n"
    b"From: <sip:a@b>;tag=1\\r\\nTo: <sip:c@d>\\r\\nCall-ID: 1\\r\\nCSeq: 1 OPTIONS\\r\\n\\r\\n",
    flow, 1.0)
print(edge.report())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 good morning 1\n")
    assert " 1 hello" in result.stdout
