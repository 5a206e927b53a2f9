"""Runs graphs in ONNX Runtime: sessions, and the grouping of requests into runs."""
