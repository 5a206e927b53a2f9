"""Settings that all tests share; they must stand before TensorFlow is first imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the figures in tolerances.py are a CPU's

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With -v: the largest differences met, to be put beside the tolerances."""
    import tolerances

    if not tolerances.MEASURED or terminalreporter.config.getoption("verbose") < 0:
        return
    terminalreporter.section("largest differences")
    for (dtype, row), gap in sorted(tolerances.MEASURED.items()):
        allowed = tolerances.TABLES[dtype][row]
        terminalreporter.line(f"{dtype:10}{row:28}{gap:10.2g}  tolerance {allowed:g}")
