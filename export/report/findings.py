"""What a report says, found out once: facts of the bundle, profiles, differences, environment."""

import dataclasses
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from export.report.differences import LayerDifference
from export.report.latency import Profile
from serve.bundle.graph_file import GraphFile
from serve.runtime.session import available_cpus


@dataclass(frozen=True)
class Findings:
    """All that stands in a report.

    Attributes:
        facts: What `serve.bundle.inspect.describe` says.
        graphs: The graphs' files.
        config: Facts of the architecture that are not their defaults.
        profiles: What each shape took.
        differences: How far each layer is from Keras; a decoder's prompt may have a graph of its
            own, and so differences of its own.
        environment: Where this was measured.
    """

    facts: dict[str, Any]
    graphs: dict[str, GraphFile]
    config: dict[str, Any]
    profiles: list[Profile]
    differences: dict[str, list[LayerDifference]]
    environment: dict[str, Any]

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data, for `report.json`."""
        return {
            "bundle": self.facts,
            "config": self.config,
            "profiles": [dataclasses.asdict(profile) for profile in self.profiles],
            "differences": {
                name: [dataclasses.asdict(row) for row in rows]
                for name, rows in self.differences.items()
            },
            "environment": self.environment,
        }


def environment() -> dict[str, Any]:
    """The machine and the runtime that measured."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        cpu = models[0] if models else cpu
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else None
    return {
        "processor": cpu,
        "cores used": available_cpus(),
        "load while measuring": load,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "providers": ["CPUExecutionProvider"],
    }
