"""Layouts: folders as clients that others wrote look for them; `docs/layouts.md` shows each."""
