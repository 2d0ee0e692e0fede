"""What all tests share."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.fake_nvml.fake import FakeDriver, build, compiler

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

# A shell that runs us in the background has us ignore SIGINT, and every process we start would inherit that: no Ctrl+C would be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    if compiler() is None:
        pytest.skip("needs a C compiler")
    return build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def fake_driver(driver_library: FakeDriver) -> FakeDriver:
    """The stand-in for NVIDIA's driver, with eight healthy H100s until the test shows others."""
    driver_library.show("count=8")
    return driver_library
