"""Parity with the reference library: cases, its values, ours, and the way back."""
