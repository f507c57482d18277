"""SIP as values: bytes in, values out; no state, no clock, no sockets (RFC 3261 §7, §19, §20)."""
