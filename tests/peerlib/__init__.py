"""Small classes that start and stop the peers of the tests: Kamailio, baresip, SIPp, our edge.

Every program runs in a directory of its own under the test's ``tmp_path``, listens on ports that
nobody used a moment ago, and is stopped by its process id.  What it wrote is kept, and shown when
the test fails (see ``fixtures``).
"""
