"""Initialisations: where a student's weights come from before its first step. One file each."""
