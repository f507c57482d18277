"""The compiled build, if the environment asks for it: ``SIPEDGE_COMPILE=1 pip install .``

Everything else about the package stands in setup.cfg.  Without that variable nothing here does
anything: sipedge is pure Python, and the compiled modules are the same sources, made quicker by
mypyc.  Whatever is not listed stays as it is, and both kinds import each other freely.
"""

from __future__ import annotations

import os
import sys
from glob import glob

from setuptools import Extension, setup

#: what works on every message; not: the rim (sockets, loops, command line), what pluggy and
#: ``inspect`` look into (modules with hooks or commands), what others make subclasses of, and what
#: runs only once
COMPILED = [
    path
    for pattern in """
        sipedge/blocklist.py
        sipedge/core.py
        sipedge/flow.py
        sipedge/forward.py
        sipedge/identity.py
        sipedge/locate.py
        sipedge/lookups.py
        sipedge/settings.py
        sipedge/streams.py
        sipedge/sip/[a-z]*.py
        sipedge/tm/[a-z]*.py
        outbound_plugin/flow_token.py
        outbound_plugin/use_outbound.py
        path_plugin/add_path.py
        registrar_plugin/answer.py
        registrar_plugin/bindings.py
        registrar_plugin/contact.py
        registrar_plugin/refresh.py
        registrar_plugin/register.py
        registrar_plugin/store/records.py
        rr_plugin/loose.py
        rr_plugin/record.py
        rr_plugin/route.py
    """.split()
    for path in sorted(glob(pattern))
]
#: what the same in Python is quick enough for everybody else
WRITTEN_IN_C = ["sipedge/sip/_usual.c"]
if sys.platform == "linux":  # the only one with recvmmsg and sendmmsg in this form
    WRITTEN_IN_C.append("sipedge/net/_mmsg.c")
#: what is not compiled, and what is not installed while we build, is not looked at
MYPY_OPTIONS = ["--ignore-missing-imports", "--follow-imports=silent", "--no-warn-unused-ignores"]


def extensions() -> list[Extension]:
    if os.environ.get("SIPEDGE_COMPILE") != "1" or {"egg_info", "dist_info"} & set(sys.argv):
        return []  # pip only asks what is needed to build (see setup_requires), or for metadata
    from mypyc.build import mypycify

    # for developers: -fsanitize=address, say
    extra = os.environ.get("SIPEDGE_CFLAGS", "").split()
    return [
        *(
            Extension(
                source.removesuffix(".c").replace("/", "."),
                [source],
                extra_compile_args=["-O3", "-Wall", "-Wextra", *extra],
                extra_link_args=extra,
            )
            for source in WRITTEN_IN_C
        ),
        *mypycify([*MYPY_OPTIONS, *COMPILED], opt_level="3"),
    ]


setup(
    ext_modules=extensions(),
    setup_requires=["mypy>=1.19"] if os.environ.get("SIPEDGE_COMPILE") == "1" else [],
)
