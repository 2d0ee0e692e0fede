"""The NVIDIA driver as the kernel tells of it: what is left to ask when the driver's own library does not answer."""

from __future__ import annotations

import re
from pathlib import Path

VERSION = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
DISPLAY_CLASS = "0x03"
"""PCI base class of what draws or computes; an NVSwitch is NVIDIA's as well and a bridge, 0x06."""


def kernel_version() -> str | None:
    """Of the driver that is loaded; None when there is none. As `cat /proc/driver/nvidia/version`."""
    found = re.search(r"NVRM version:.*?\s(\d+\.\d[\d.]*)\s", _text(VERSION))
    return found[1] if found else None


def gpus_on_bus() -> int:
    """As `lspci -d 10de: | grep -c -e VGA -e 3D`; a driver need not be there."""
    try:
        devices = list(PCI_DEVICES.iterdir())
    except OSError:
        return 0
    return sum(_text(device / "vendor").strip() == NVIDIA and _text(device / "class").startswith(DISPLAY_CLASS) for device in devices)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
