"""Everything that cannot work, found before anything is loaded, in one list."""
