"""What leaves kdexp: a student in forms that run elsewhere, checked, measured, with a card and a table."""
