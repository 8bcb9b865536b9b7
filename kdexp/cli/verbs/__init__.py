"""One file a verb of ``python -m kdexp``, named like it; its ``VERB`` says what it takes and does."""
