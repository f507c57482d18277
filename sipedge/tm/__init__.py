"""Transactions: RFC 3261 §16 and §17 with 6026 and 4320.  No clock: time is an argument."""
