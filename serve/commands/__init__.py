"""The commands that need no framework, as plain click commands."""
