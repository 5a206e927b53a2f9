"""Smaller and faster graphs: weights, and where it pays what they meet, in 8 or 4 bits."""
