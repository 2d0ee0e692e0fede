"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

# A shell that runs us in the background has us ignore SIGINT, and every process we start would inherit that: no Ctrl+C would be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
