"""Objectives: what a student is trained to match. One file each; see :mod:`kdexp.objectives.base`."""
