"""Stops 1 and 8: many datagrams for one system call, ``recvmmsg`` and ``sendmmsg`` through ctypes.

Strategy: all structures are laid out once; per batch only what differs is touched, with slices and
never field by field (a ctypes attribute costs more than the copy of a whole message).  Received
bytes are copied out of one slab whose slots hold the largest datagram there is, so nothing is ever
truncated (requirement TRN-12); pages of the slab that no datagram reached take no memory.

``NativeIO`` is the same in C (``_mmsg.c``), where sipedge was built with it.  ``PlainIO`` makes do
with ``recvfrom`` and ``sendto``, for systems without these calls.  ``batch_io`` chooses one of them
at start-up.  An address is kept in the form that the calls want: packed ``sockaddr`` octets, in
``PlainIO`` Python's tuple; to everyone else it is an opaque key.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from array import array
from typing import Any, Final, Protocol

try:
    from sipedge.net import _mmsg
except ImportError:
    _mmsg = None  # type: ignore[assignment]

BATCH: Final = 64  # datagrams per call and per wake-up
_LARGEST: Final = 65536  # UDP carries 65,507 octets over IPv4, 65,527 over IPv6
_SLOT: Final = _LARGEST + 128  # no power of two: else all slots would share the same cache sets
_NOTHING_NOW: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))

Datagram = tuple[bytes, Any]  # octets and the address key of the peer


class BatchIO(Protocol):
    """Datagrams in and out of the sockets of one address family."""

    def receive(self, sock: socket.socket) -> list[Datagram]:
        """Up to ``BATCH`` waiting datagrams, none if there are none.  Raises OSError for a pending
        error of the socket (an ICMP message came in); what waits behind it is read next time."""

    def send(self, sock: socket.socket, data: list[bytes], to: list[Any]) -> int:
        """Send up to ``BATCH`` datagrams to their address keys; returns how many the system took.
        Raises OSError if it did not take the first one, BlockingIOError if it cannot now."""

    def key(self, address: tuple[Any, ...]) -> Any:
        """The address key of Python's address tuple; host and port are enough."""

    def sockaddr(self, key: Any) -> tuple[Any, ...]:
        """Python's address tuple of a key: host and port first."""


class PlainIO:
    """One system call per datagram: works everywhere."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._v6 = family == socket.AF_INET6

    def receive(self, sock: socket.socket) -> list[Datagram]:
        got: list[Datagram] = []
        receive = sock.recvfrom
        try:
            for _ in range(BATCH):
                got.append(receive(_LARGEST))  # noqa: PERF401  # what came before an error counts
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            if not got:
                raise
        return got

    def send(self, sock: socket.socket, data: list[bytes], to: list[Any]) -> int:
        sent = 0
        try:
            for datagram, address in zip(data, to, strict=True):
                sock.sendto(datagram, address)
                sent += 1
        except OSError:
            if not sent:
                raise
        return sent

    def key(self, address: tuple[Any, ...]) -> Any:
        return (*address, 0, 0)[:4] if self._v6 else address[:2]

    def sockaddr(self, key: Any) -> tuple[Any, ...]:
        address: tuple[Any, ...] = key
        return address


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint))


_WORDS: Final = ctypes.sizeof(_Mmsghdr) // 4  # a header in 32-bit words
_LEN_WORD: Final = _Mmsghdr.len.offset // 4


class _Headers:
    """An array of mmsghdr with one iovec and one sockaddr each.

    Character arrays are typed ``Any``: their slices are bytes, which their stubs do not say.
    """

    def __init__(self, name_size: int) -> None:
        self.names: Any = (ctypes.c_char * (BATCH * name_size))()
        self.iov = (_Iovec * BATCH)()
        self.array = (_Mmsghdr * BATCH)()
        self.address = ctypes.addressof(self.array)
        names, iov = ctypes.addressof(self.names), ctypes.addressof(self.iov)
        for i, message in enumerate(self.array):
            message.hdr.name = names + i * name_size
            message.hdr.namelen = name_size
            message.hdr.iov = iov + i * ctypes.sizeof(_Iovec)
            message.hdr.iovlen = 1


class _PackedKeys:
    """Address keys of one family: packed ``sockaddr`` octets."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._family = family

    def key(self, address: tuple[Any, ...]) -> bytes:
        family = struct.pack("=H", self._family)
        port = struct.pack("!H", address[1])
        packed = socket.inet_pton(self._family, address[0])
        if self._family == socket.AF_INET:
            return family + port + packed + bytes(8)
        scope = address[3] if len(address) > 2 else 0
        return family + port + bytes(4) + packed + struct.pack("=I", scope)

    def sockaddr(self, key: Any) -> tuple[Any, ...]:
        (port,) = struct.unpack_from("!H", key, 2)
        if self._family == socket.AF_INET:
            return socket.inet_ntop(self._family, key[4:8]), port
        (scope,) = struct.unpack_from("=I", key, 24)  # of a link-local peer
        return socket.inet_ntop(self._family, key[8:24]), port, 0, scope


class NativeIO(_PackedKeys):
    """``recvmmsg`` and ``sendmmsg`` of Linux, called in C."""

    def receive(self, sock: socket.socket) -> list[Datagram]:
        return _mmsg.receive(sock.fileno())

    def send(self, sock: socket.socket, data: list[bytes], to: list[Any]) -> int:
        return _mmsg.send(sock.fileno(), data, to)


class MmsgIO(_PackedKeys):
    """``recvmmsg`` and ``sendmmsg`` of Linux, called through ctypes.

    One instance serves all sockets of one family in one thread.  The kernel writes back a name
    length that for one family is always the same, so that nothing needs resetting between calls.
    """

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family)
        libc = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg = libc.recvmmsg
        self._recvmmsg.argtypes = (
            ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
        )  # fmt: skip
        self._sendmmsg = libc.sendmmsg
        self._sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._name = name = 16 if family == socket.AF_INET else 28  # sizeof sockaddr_in, _in6

        self._rx = _Headers(name)
        self._slab: Any = (ctypes.c_char * (BATCH * _SLOT))()
        base = ctypes.addressof(self._slab)
        for i, iov in enumerate(self._rx.iov):
            iov.base = base + i * _SLOT
            iov.len = _LARGEST
        self._slots = [i * _SLOT for i in range(BATCH)]
        self._name_at = [i * name for i in range(BATCH)]
        self._rx_words = memoryview(self._rx.array).cast("B").cast("I")

        self._tx = _Headers(name)
        # two views of the iovecs: every even word is a pointer, every odd one a length; storing
        # bytes in a c_char_p array stores their address and keeps them alive
        self._tx_data: Any = (ctypes.c_char_p * (2 * BATCH)).from_buffer(self._tx.iov)
        self._tx_size = memoryview(self._tx.iov).cast("B").cast("L")
        self._tx_names = memoryview(self._tx.names).cast("B")

    def receive(self, sock: socket.socket) -> list[Datagram]:
        count = self._recvmmsg(sock.fileno(), self._rx.address, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code in _NOTHING_NOW:
                return []
            raise OSError(code, os.strerror(code))
        slab, name = self._slab, self._name
        names = self._rx.names[: count * name]
        sizes = self._rx_words[_LEN_WORD : count * _WORDS : _WORDS].tolist()
        return [
            (slab[at : at + size], names[i : i + name])
            for size, at, i in zip(sizes, self._slots, self._name_at, strict=False)
        ]

    def send(self, sock: socket.socket, data: list[bytes], to: list[Any]) -> int:
        count = len(data)
        self._tx_data[0 : 2 * count : 2] = data
        self._tx_size[1 : 2 * count : 2] = array("L", map(len, data))
        self._tx_names[: count * self._name] = b"".join(to)
        sent: int = self._sendmmsg(sock.fileno(), self._tx.address, count, socket.MSG_DONTWAIT)
        if sent < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return sent


def mmsg_works(kind: type[NativeIO | MmsgIO] = MmsgIO) -> bool:
    """Whether both calls are there, with the structures as we lay them out (Linux, 64 bits)."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if kind is NativeIO and _mmsg is None:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", 0))
            io = kind(socket.AF_INET)
            here = io.key(probe.getsockname())
            return io.send(probe, [b"?"], [here]) == 1 and io.receive(probe) == [(b"?", here)]
        except (OSError, AttributeError):  # refused by a sandbox, or a C library without them
            return False


def batch_io(family: socket.AddressFamily) -> BatchIO:
    """The quickest of the three that works here."""
    if mmsg_works(NativeIO):
        return NativeIO(family)
    return MmsgIO(family) if mmsg_works() else PlainIO(family)
