"""Launchers: who carries points out, and where."""
