"""``python -m bench grid``: placeholder."""


def main(arguments: list[str] | None = None) -> int:
    """Not yet."""
    return 2
