"""A page about a bundle that a person would want to look at: size, speed, and error by layer."""

from export.report.writing import write_report

__all__ = ["write_report"]
