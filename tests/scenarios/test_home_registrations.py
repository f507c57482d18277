"""S34, S35, S40, S42 and S45 to S47: what the registrar takes, lists and hands out."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.peerlib.process import PATIENCE, Crew, free_port
from tests.peerlib.sipedge import CORE, PROGRAM, Sipedge, all_in_one, edge, registrar
from tests.peerlib.ua import Message, Phone

INSTANCE = "urn:uuid:00000000-0000-4000-8000-00000000000{}"
CORE_PROXY = """
listen("udp:{host}:{port}")
loadmodule("tm")
loadmodule("sl")
loadmodule("rr")
loadmodule("path")
def request_route(ksr, msg):
    ksr.rr.loose_route(msg)
    if msg.method == b"REGISTER":
        ksr.path.add_path(msg)
        msg.dst_uri = b"sip:{home}"
    ksr.tm.t_relay(msg)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as everybody:
        yield everybody


def send_register(
    phone: Phone,
    contact: str,
    *headers: str,
    supported: str = "path, outbound",
    user: str = "",
    call_id: str = "",
) -> Message:
    """A REGISTER with that Contact value; the final answer, whatever it is."""
    aor = f"sip:{user or phone.user}@example.com"
    rows = [f"From: <{aor}>;tag={phone.tag}", f"To: <{aor}>", *headers]
    if contact:
        rows.append(f"Contact: {contact}")
    if supported:
        rows.append(f"Supported: {supported}")
    if call_id:
        rows.append(f"Call-ID: {call_id}")
    phone.request("REGISTER", "sip:example.com", *rows)
    return phone.receive()


def flow_contact(
    phone: Phone, reg_id: int, instance: str = INSTANCE.format(1), more: str = ""
) -> str:
    return f'<sip:{phone.user}@10.0.0.9;ob>;+sip.instance="<{instance}>";reg-id={reg_id}{more}'


def reg_ids(answer: Message) -> list[str]:
    return sorted(re.findall(r"reg-id=(\d)", ", ".join(answer.all("Contact"))))


def parameter(contact: str, name: str) -> str:
    found = re.search(f';{name}="([^"]*)"', contact)
    assert found, contact
    return found[1]


def rings(caller: Phone, uri: str, *phones: Phone) -> None:
    """A call to ``uri`` reaches exactly these, and all are busy."""
    branch = caller.invite(uri, f"Call-ID: {caller.next_cseq()}-{caller.call_id}")
    for phone in phones:
        phone.respond(phone.expect("INVITE"), 486, "Busy Here")
        phone.expect("ACK")
    caller.ack_failure(uri, branch, caller.expect("486"))


def refused(caller: Phone, uri: str, *statuses: str) -> str:
    branch = caller.invite(uri, f"Call-ID: {caller.next_cseq()}-{caller.call_id}")
    answer = caller.expect(*statuses)
    caller.ack_failure(uri, branch, answer)
    return answer.what


@pytest.mark.rfc("RGO-02", "RGO-03", "RGO-04")
def test_s34_a_first_hop_without_outbound(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    dumb = stack.enter_context(Phone("bob", home.at, host=CORE))
    second = "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKp"
    no_ob = f"Path: <sip:{dumb.address};lr>"
    for headers in ((second,), (second, no_ob)):
        answer = send_register(dumb, flow_contact(dumb, 1), *headers)
        assert answer.what == "439"
        assert dumb.bindings() == []
    answer = send_register(dumb, f"<sip:bob@{dumb.address}>", second)
    assert (answer.what, answer.get("Require")) == ("200", "")
    answer = send_register(dumb, flow_contact(dumb, 1), second, supported="path")
    assert (answer.what, answer.get("Require")) == ("200", "")


@pytest.mark.rfc("RGO-01", "HPX-05")
def test_s35_a_chain_of_edge_and_core_proxy(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    between = ("127.0.0.3", free_port("127.0.0.3"))
    directory = crew.place("core-proxy")
    config = directory / "core_proxy.py"
    config.write_text(CORE_PROXY.format(host=between[0], port=between[1], home=home.address))
    program = crew.start(directory, [str(PROGRAM), "run", str(config)])
    program.wait_output("sipedge is listening on ")
    first = edge(crew, f"{between[0]}:{between[1]}")
    bob = stack.enter_context(Phone("bob", first.at, "tcp"))
    answer = bob.register()
    assert answer.get("Require") == "outbound"
    core, token = (value for row in answer.all("Path") for value in row.split(", "))
    assert core == f"<sip:{between[0]}:{between[1]};lr>"
    assert token.endswith(f"@{first.address};lr;ob>")
    alice = stack.enter_context(Phone("alice", home.at))
    alice.invite(bob.aor)
    invite = bob.expect("INVITE")
    assert invite.uri == bob.contact
    assert invite.all("Route") == []
    hops = [row.split(";")[0].split()[-1] for row in ", ".join(invite.all("Via")).split(", ")]
    assert hops[1:] == [f"{between[0]}:{between[1]}", home.address, alice.address]
    bob.respond(invite, 486, "Busy Here")
    alice.expect("486")


@pytest.mark.rfc("GRU-01", "GRU-02", "GRU-03", "GRU-04", "GRU-05", "GRU-06")
def test_s40_gruu(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    edges = edge(crew, home.address), edge(crew, home.address)
    flows = [stack.enter_context(Phone("bob", at.at, "tcp")) for at in edges]
    other = stack.enter_context(Phone("bob", edges[0].at))
    alice = stack.enter_context(Phone("alice", home.at))
    wants = "path, outbound, gruu"
    seen = []
    for reg_id, flow in enumerate(flows, 1):
        answer = send_register(flow, flow_contact(flow, reg_id), supported=wants)
        seen += [row for row in answer.all("Contact") if f"reg-id={reg_id};" in row]
    public = {parameter(row, "pub-gruu") for row in seen}
    assert public == {f"sip:bob@example.com;gr={INSTANCE.format(1)}"}
    temporary = [parameter(row, "temp-gruu") for row in seen]
    assert len(set(temporary)) == 2
    assert send_register(other, flow_contact(other, 1, INSTANCE.format(2))).what == "200"
    (gruu,) = public
    for uri in (gruu, *temporary):
        rings(alice, uri, flows[1])  # one flow, the newest, of one device
    flows[1].socket.close()
    rings(alice, gruu, flows[0])
    other.silence(0.3)
    assert refused(alice, "sip:bob@example.com;gr=nobody", "404", "480") == "404"
    # it boots: another Call-ID ends what was given out before
    answer = send_register(flows[0], flow_contact(flows[0], 1), supported=wants, call_id="boot")
    new = next(row for row in answer.all("Contact") if INSTANCE.format(1) in row)
    assert refused(alice, temporary[0], "404", "480") == "404"
    rings(alice, parameter(new, "temp-gruu"), flows[0])
    gone = flow_contact(flows[0], 1, more=";expires=0")
    assert send_register(flows[0], gone, supported=wants, call_id="boot").what == "200"
    assert refused(alice, gruu, "404", "480") == "480"
    assert refused(alice, parameter(new, "temp-gruu"), "404", "480") == "404"


@pytest.mark.rfc("REG-16", "LOP-06")
def test_s42_contacts_that_lead_back_here(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    alice = stack.enter_context(Phone("alice", home.at))
    for contact in ("<sip:alice@example.com>", "<sip:alice@example.com;x=1>"):
        assert send_register(alice, contact, supported="").what == "403"
    assert alice.bindings() == []


@pytest.mark.rfc("LOP-06")
@pytest.mark.parametrize("use_domain", [0, 1])
def test_s42_users_that_lead_to_each_other(use_domain: int, crew: Crew, stack: ExitStack) -> None:
    """Every look-up forks in two and comes back: what ends that is the loop check."""
    path = 'modparam("registrar", "use_path", 1)'
    own = f'{path}\nmodparam("registrar", "use_domain", {use_domain})'
    home = Sipedge(crew, "registrar", CORE, 0, {"127.0.0.2:5060": "@here@", path: own})
    alice = stack.enter_context(Phone("alice", home.at))
    for user, peer in (("a", "b"), ("b", "a")):
        both = ", ".join(f"<sip:{peer}@{home.address};x={n}>" for n in (1, 2))
        # by way of some proxy, so that it is called where its Contact says
        proxied = "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKp"
        answer = send_register(alice, both, proxied, user=user, supported="", call_id=user)
        assert answer.what == "200"
    ends = refused(alice, "sip:a@example.com", "482", "483", "480", "404")
    assert ends == ("480" if use_domain else "482")


def connection(at: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(at, PATIENCE)
    sock.settimeout(PATIENCE)
    return sock


def storm_register(sock: socket.socket, user: int, cseq: int) -> None:
    host, port = sock.getsockname()
    sock.sendall(
        f"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP {host}:{port}"
        f";branch=z9hG4bK{user}x{cseq};rport\r\nMax-Forwards: 70\r\n"
        f"From: <sip:u{user}@example.com>;tag=f\r\nTo: <sip:u{user}@example.com>\r\n"
        f"Call-ID: u{user}\r\nCSeq: {cseq} REGISTER\r\nSupported: path, outbound\r\n"
        f"Contact: <sip:u{user}@{host}:{port};transport=tcp;ob>;reg-id=1"
        f';+sip.instance="<urn:uuid:00000000-0000-4000-8000-{user:012x}>"\r\n'
        "Content-Length: 0\r\n\r\n".encode()
    )


def answer_of(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more, "closed without an answer"
        data += more
    return data


@pytest.mark.rfc("INC-15")
def test_s45_two_thousand_phones_reconnect_after_a_restart(crew: Crew, stack: ExitStack) -> None:
    """All are answered, while one of them never reads what it is sent."""
    home = registrar(crew)
    lifetime = "core.tcp_connection_lifetime"
    any_number = f"core.tcp_accept_iplimit = 0\n{lifetime}"
    first = edge(crew, home.address, more={lifetime: any_number})
    for cseq in (1, 2):
        phones = [stack.enter_context(closing(connection(first.at))) for _ in range(2000)]
        deaf = stack.enter_context(closing(connection(first.at)))
        for user, phone in enumerate(phones):
            storm_register(phone, user, cseq)
            if user % 10 == 0:
                storm_register(deaf, 5000, 10_000 * cseq + user)
        for phone in phones:
            answer = answer_of(phone)
            assert answer.startswith((b"SIP/2.0 200 ", b"SIP/2.0 503 ")), answer
        if cseq == 1:
            first.kill()
            first.start()
    with Phone("u1999", first.at) as asking:
        (binding,) = asking.bindings()
    assert f":{phones[1999].getsockname()[1]};" in binding


@pytest.mark.rfc("HPX-07", "RGO-10", "KA-20")
def test_s46_all_in_one(crew: Crew, stack: ExitStack) -> None:
    box = all_in_one(crew)
    line = stack.enter_context(Phone("line1", box.at, "tcp"))
    alice = stack.enter_context(Phone("alice", box.at))
    for user in ("line1", "line2"):
        answer = send_register(line, flow_contact(line, 1), user=user, call_id=user)
        assert (answer.what, answer.get("Require")) == ("200", "outbound")
    alice.register()
    line.socket.sendall(b"\r\n\r\n")
    assert line.socket.recv(16) == b"\r\n", "it answers keep-alives itself"
    for user in ("line1", "line2"):
        rings(alice, f"sip:{user}@example.com", line)
    line.socket.close()
    for user in ("line1", "line2"):
        assert refused(alice, f"sip:{user}@example.com", "480", "430", "404") == "480"
    # over UDP an ICMP error says so, once somebody is called
    udp = stack.enter_context(Phone("udp", box.at))
    udp.register()
    udp.socket.close()
    assert refused(alice, udp.aor, "480", "430", "408") == "480"
    # and a phone behind another edge is judged by the Path of that one
    behind = stack.enter_context(Phone("behind", edge(crew, box.address).at))
    assert behind.register().get("Require") == "outbound"
    dumb = send_register(
        alice, flow_contact(alice, 1), "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKp", user="carol"
    )
    assert dumb.what == "439"


@pytest.mark.rfc("RGO-11", "RGO-14", "RGO-24")
def test_s47_partial_and_full_removal(crew: Crew, stack: ExitStack) -> None:
    home = registrar(crew)
    edges = edge(crew, home.address), edge(crew, home.address)
    flows = [stack.enter_context(Phone("bob", at.at, "tcp")) for at in edges]
    alice = stack.enter_context(Phone("alice", home.at))
    for reg_id, flow in enumerate(flows, 1):
        send_register(flow, flow_contact(flow, reg_id))
    gone = flow_contact(flows[0], 1, more=";expires=0")
    answer = send_register(flows[0], gone)
    assert (answer.what, answer.get("Require"), reg_ids(answer)) == ("200", "outbound", ["2"])
    rings(alice, "sip:bob@example.com", flows[1])
    two = f"{flow_contact(flows[0], 1)}, {flow_contact(flows[0], 3, INSTANCE.format(3))}"
    assert send_register(flows[0], two).what == "400"
    assert [row.partition("reg-id=")[2][0] for row in flows[0].bindings()] == ["2"]
    one = f"{flow_contact(flows[0], 1)}, <sip:bob@10.0.0.7>;expires=0"
    answer = send_register(flows[0], one)
    assert (answer.what, reg_ids(answer)) == ("200", ["1", "2"])
    answer = send_register(flows[0], "*", "Expires: 0")
    assert (answer.what, answer.get("Require"), answer.all("Contact")) == ("200", "", [])
    assert refused(alice, "sip:bob@example.com", "480", "404") == "480"
