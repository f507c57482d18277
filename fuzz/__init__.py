"""Fuzz harnesses: ``make fuzz``, or ``python fuzz/fuzz_message.py -max_total_time=60``.

Each ``fuzz_*.py`` has ``one_input(data)``, which raises if an invariant breaks, and ``SEEDS`` to
start from.  ``tests/test_fuzz.py`` runs the seeds through them, so that they keep working
on machines without atheris.
"""
